"""Files of a prepared dataset are written aside and renamed, so that one that exists is whole.

The place aside tells which process of which machine writes there: what a process that was killed left behind is
known, and removed by the next run.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABANDONED = 24 * 3600.0
"""Seconds after which what another machine left aside is taken for dead."""


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A place beside `path`, there from the first moment to the last; whoever writes it renames it to `path`.

    Nothing is flushed to the disk: what a crash of the machine loses is told by its size or checksum.
    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.part")
    aside.touch()
    try:
        yield aside
    finally:
        aside.unlink(missing_ok=True)


def left_aside(directory: Path) -> dict[Path, str]:
    """What processes that are dead left in a folder: path -> what it was to become, without its suffix."""
    found = {}
    for aside in directory.glob(".*.part"):
        stem, host, process = aside.name.removeprefix(".").split(".")[:3]
        try:
            age = time.time() - aside.stat().st_mtime
        except FileNotFoundError:
            continue
        if (host == _host() and not _alive(int(process))) or age > ABANDONED:
            found[aside] = stem
    return found


def tidy(directory: Path) -> None:
    """Removes what dead processes left aside; where that is not allowed it stays."""
    for path in left_aside(directory):
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return


def _host() -> str:
    return "".join(c if c.isalnum() or c == "-" else "-" for c in socket.gethostname())


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a process that is dead stays in the table until its parent has looked
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state not in ("Z", "X")
