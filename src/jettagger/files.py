"""Files that are either whole or absent: written aside, flushed, renamed; checksums; one writer at a time."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jettagger.errors import JettaggerError

RIVALS = 100
"""How often a folder is put in its place anew when another process was quicker."""


@contextmanager
def written_aside(path: Path | str) -> Iterator[Path]:
    """Yields a path beside `path`; what was written there is renamed to `path` if no error came.

    The suffix is kept, for writers that go by it. Raises JettaggerError when the folder cannot be written.
    """
    path = Path(path)
    if _is_folder(path):
        raise JettaggerError(f"cannot write {path}: it is a folder")
    aside = _reserve(path, directory=False)
    try:
        yield aside
        flush(aside)
        aside.replace(path)
        with suppress(OSError):  # not every file system knows it of folders
            flush(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def directory_written_aside(path: Path | str) -> Iterator[Path]:
    """Yields a new folder beside `path`; it takes the place of `path` if no error came."""
    path = Path(path)
    aside = _reserve(path, directory=True)
    try:
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                flush(file)
        _take_place(path, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def one_at_a_time(path: Path | str) -> Iterator[None]:
    """While its body runs, others that ask for the same `path` wait, on this machine and, where the file system has
    locks, on others. `path` is there meanwhile only.

    On a file system without locks nobody waits: what is written must be whole for itself.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
            if not _is_still(handle, path):
                continue  # the one before has removed it: nobody else will ask for this one
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


def _lock(handle: int) -> None:
    """Waits for the lock of a file; not where the file system has none."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _is_still(handle: int, path: Path) -> bool:
    """Whether the open file is the one that lies at `path`."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def write_json(path: Path | str, content: Any) -> None:
    """Writes `content` as JSON, whole or not at all. NaN and infinity are refused: JSON has none."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_writable(path: Path | str) -> None:
    """Raises JettaggerError unless a file or folder `path` could be written, before work is spent on it.

    Nothing is left behind, not even the folders that it would lie in.
    """
    path = Path(path)
    missing = [folder for folder in path.parents if not _is_folder(folder)]
    try:
        _reserve(path / "probe" if _is_folder(path) else path, directory=False).unlink()
    finally:
        for folder in missing:
            with suppress(OSError):  # never made, or in use by someone else already
                folder.rmdir()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, for one: writing will say so
        return False


def _reserve(path: Path, *, directory: bool) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if directory:
            folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            folder.chmod(0o755)
            return folder
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
        os.fchmod(handle, 0o644)
        os.close(handle)
        return Path(name)
    except (FileExistsError, NotADirectoryError) as error:
        raise JettaggerError(f"cannot write {path}: what should be its folder is a file") from error
    except OSError as error:
        raise JettaggerError(f"cannot write {path}: {error.strerror or error}") from error


def _take_place(path: Path, aside: Path) -> None:
    """Puts the folder `aside` in the place of `path`; if that fails, the old `path` is put back.

    Where others do the same at the same time, the last one's folder stays, whole.
    """
    for _ in range(RIVALS):
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
        try:
            with suppress(FileNotFoundError):  # there is none, or another process has just taken it away
                path.replace(old / path.name)
            try:
                aside.replace(path)
                return
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue  # another process has put its own there
                if (old / path.name).exists() or (old / path.name).is_symlink():
                    (old / path.name).replace(path)
                raise
        finally:
            shutil.rmtree(old)
    raise JettaggerError(f"cannot write {path}: other processes replace it all the time")
