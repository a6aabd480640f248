"""Makes the next reading of files a cold one."""

import os
from collections.abc import Iterable
from pathlib import Path


def forget(paths: Iterable[str | Path]) -> None:
    """Drops the files' pages from the system's cache; needs no special rights.

    What a disk, a hypervisor or a file server keeps itself stays as it is.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not written yet cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def files_below(path: str | Path) -> list[Path]:
    """All files of a folder; a file is its own."""
    path = Path(path)
    return [path] if path.is_file() else [x for x in sorted(path.rglob("*")) if x.is_file()]
