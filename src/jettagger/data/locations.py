"""Where files are: paths, globs and URLs (root://, https://, … through fsspec), and how their bytes are reached."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from jettagger.errors import JettaggerError, nearest

CONNECT_S = 15
"""Seconds that a server has to accept a connection."""
ANSWER_S = 60
"""Seconds that a server may be silent."""
BLOCK_BYTES = 2**20
"""Bytes of a remote file that are fetched at a time where a library asks for few of them."""

_PACKAGES = {
    "root": "fsspec-xrootd",
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
}
"""What has to be installed beside fsspec, by protocol."""


def is_remote(location: str) -> bool:
    """Whether it is a URL (root://, https://, …), not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", location) is not None


def size(location: str) -> int:
    """Bytes of the file. Raises JettaggerError for one that is not there or cannot be reached."""
    with reachable(location):
        if not is_remote(location):
            return Path(location).stat().st_size
        system, path = filesystem(location)
        found = system.size(path)
    if found is None:
        raise JettaggerError(f"cannot read {location}: the server does not say how long the file is")
    return int(found)


@contextmanager
def opened_binary(location: str) -> Iterator[BinaryIO]:
    """The file, local or remote, as a seekable stream of bytes.

    Raises JettaggerError for one that is not there or cannot be reached, also while it is being read.
    """
    with reachable(location):
        if not is_remote(location):
            with Path(location).open("rb") as local:
                yield local
            return
        system, path = filesystem(location)
        with system.open(path, "rb", block_size=BLOCK_BYTES, cache_type="blockcache") as stream:
            if not stream.seekable():
                raise _no_parts(location)
            yield cast(BinaryIO, stream)


def beginning(location: str, count: int) -> bytes:
    """The first bytes of a file, `count` of them or all that there are."""
    if not is_remote(location):
        with opened_binary(location) as stream:
            return stream.read(count)
    with reachable(location):
        system, path = filesystem(location)
        with system.open(path, "rb", cache_type="none") as remote:
            # A server that does not know ranges is found at the second byte: the first ones it can always give.
            remote.seek(1)
            rest = remote.read(max(min(count, remote.size or count) - 1, 0))
            remote.seek(0)
            return bytes(remote.read(1) + rest)


def filesystem(location: str) -> tuple[Any, str]:
    """fsspec's view of a URL: the file system, and the path in it. Raises what fsspec raises."""
    import fsspec

    system, path = fsspec.core.url_to_fs(location, **options(location))
    return system, path


def options(location: str) -> dict[str, Any]:
    """What fsspec and uproot are told of a URL's protocol: time-outs, where they know any."""
    if urlsplit(location).scheme.lower() not in ("http", "https"):
        return {}
    import aiohttp

    limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=ANSWER_S)
    return {"client_kwargs": {"timeout": limit}}


@contextmanager
def reachable(location: str) -> Iterator[None]:
    """Turns what goes wrong between here and a file into one readable error; lets other errors pass."""
    try:
        yield
    except JettaggerError:
        raise
    except Exception as error:
        if (trouble := unreachable(location, error)) is not None:
            raise trouble from error
        raise


def unreachable(location: str, error: BaseException) -> JettaggerError | None:
    """The readable error, where `error` says that a file is not there or cannot be reached; else None."""
    if isinstance(error, FileNotFoundError):
        cause = error.__cause__
        if cause is None or getattr(cause, "status", None) in (404, 410):
            return JettaggerError(f"no such file: {location}")
        error = cause  # fsspec says so of a file whose server refuses it, or is not there
    if isinstance(error, PermissionError):
        return JettaggerError(f"cannot read {location}: you may not read it ({error})")
    if not is_remote(location):
        return None
    scheme = urlsplit(location).scheme.lower()
    if isinstance(error, ImportError):
        package = _PACKAGES.get(scheme, f"the fsspec package for {scheme}")
        return JettaggerError(f"cannot read {location}: {scheme}:// needs {package} (pip install {package})")
    if isinstance(error, ValueError) and "Protocol not known" in str(error):
        close = nearest(scheme, _PACKAGES)
        hint = f": did you mean {close}://?" if close else ""
        known = ", ".join(sorted(_PACKAGES))
        return JettaggerError(f"{location}: unknown protocol '{scheme}'{hint} (known: {known}, …)")
    if isinstance(error, ValueError) and re.search("range requests|[Gg]ot more bytes", str(error)):
        return _no_parts(location)
    host = urlsplit(location).netloc
    if isinstance(error, TimeoutError):
        return JettaggerError(f"cannot read {location}: {host} did not answer within {ANSWER_S} s")
    if (status := getattr(error, "status", None)) is not None:
        said = getattr(error, "message", "")
        return JettaggerError(f"cannot read {location}: {host} answered {status} {said}".rstrip())
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] == "aiohttp":
        return JettaggerError(f"cannot read {location}: {host} cannot be reached ({error})")
    return None


def _no_parts(location: str) -> JettaggerError:
    return JettaggerError(
        f"cannot read {location}: the server does not give parts of a file (range requests): copy the file here"
    )


def find_files(patterns: str | list[str], *, where: str) -> list[str]:
    """The files that paths, URLs and globs stand for: sorted within a glob, each once.

    `where` names the config's key in the error for a pattern that matches nothing.
    """
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if is_remote(pattern):
            found.update(dict.fromkeys(_remote_files(pattern, where)))
            continue
        path = Path(pattern).expanduser()
        # A file that is there is no pattern, whatever brackets its name holds.
        matches = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise _no_match(pattern, where)
        found.update((str(Path(match)), None) for match in matches)
    if not found:
        raise JettaggerError(f"{where}: the list of files is empty")
    return list(found)


def _remote_files(pattern: str, where: str) -> list[str]:
    # A question mark begins a URL's query, and brackets are rare in patterns but not in URLs.
    if "*" not in pattern:
        return [pattern]
    try:
        with reachable(pattern):
            system, path = filesystem(pattern)
            matches = sorted(str(system.unstrip_protocol(match)) for match in system.glob(path))
    except NotImplementedError as error:
        scheme = urlsplit(pattern).scheme
        raise JettaggerError(
            f"{where}: '{pattern}': {scheme}:// cannot list files: name each of them"
        ) from error
    if not matches:
        raise JettaggerError(
            f"{where}: no file matches '{pattern}' (the server has to list its folders: else name each file)"
        )
    return matches


def _no_match(pattern: str, where: str) -> JettaggerError:
    folder = Path(pattern).expanduser().parent
    if not folder.is_dir():
        if glob.has_magic(str(folder)):
            return JettaggerError(f"{where}: no file matches '{pattern}'")
        return JettaggerError(f"{where}: no file matches '{pattern}': there is no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    close = nearest(Path(pattern).name.replace("*", ""), names)
    hint = f" (did you mean {folder / close}?)" if close else f" ({len(names)} files in {folder})"
    kind = "no file matches" if glob.has_magic(pattern) else "no such file:"
    return JettaggerError(f"{where}: {kind} '{pattern}'{hint}")
