"""Where files are: paths, globs and URLs."""

import glob
import re
from pathlib import Path

from jettagger.errors import JettaggerError, nearest


def is_remote(location: str) -> bool:
    """Whether it is a URL (root://, https://, …), not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", location) is not None


def find_files(patterns: str | list[str], *, where: str) -> list[str]:
    """The files that paths and globs stand for: sorted within a glob, each once.

    `where` names the config's key in the error for a pattern that matches nothing.
    """
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if is_remote(pattern):
            found[pattern] = None
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
