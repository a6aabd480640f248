"""Memory that a training frees and takes again in every step, kept by the process.

By default the C library gives large pieces back to the system at once, and every step then finds its memory as
empty pages that the system has to make and to clear: half of the time of a network whose activations fill hundreds
of megabytes.
"""

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager

import torch

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Names of glibc's mallopt(3)."""
DEFAULT_TRIM, DEFAULT_MAPS = 128 * 1024, 65536
NEVER_TRIM = 2**31 - 1

_bodies = 0
"""How many are being run, one inside another."""


@contextmanager
def kept_memory(device: torch.device) -> Generator[None, None, None]:
    """Until its body ends, the process keeps what it frees; then it is given back, by the outermost of several.

    Changes no number. On a device with memory of its own, and where the C library is not glibc, nothing is changed.
    """
    library = _glibc() if device.type == "cpu" else None
    if library is None:
        yield
        return
    global _bodies
    _bodies += 1
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, NEVER_TRIM)
    try:
        yield
    finally:
        _bodies -= 1
        if not _bodies:
            _give_back(library)


def _give_back(library: ctypes.CDLL) -> None:
    library.mallopt(MMAP_MAX, DEFAULT_MAPS)
    library.mallopt(TRIM_THRESHOLD, DEFAULT_TRIM)
    library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
