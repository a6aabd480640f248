"""Files of any container, told apart by their first bytes, opened with care."""

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from threading import get_ident

from jettagger.data.containers.base import Opening, Source
from jettagger.data.containers.root import RootSource
from jettagger.data.locations import beginning, is_remote
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError

LONGEST = 8
"""Bytes by which a container is known, at most."""
KNOWN = ("ROOT", "HDF5", "NumPy (.npz, .npy)", "parquet")


def opening_of(config: DataConfig) -> Opening:
    """What a config says of how its files are read."""
    columns = tuple((name, tuple(names)) for name, names in config.data.columns.items())
    return Opening(config.data.tree, columns)


def source_of(location: str | Path, opening: Opening = Opening()) -> Source:  # noqa: B008 - it is immutable
    """The file at a path or URL, of the container that its first bytes tell. Raises JettaggerError for others."""
    location = str(location)
    if not is_remote(location):
        path = Path(location)
        if not path.exists():
            raise JettaggerError(f"no such file: {path}")
        if path.is_dir():
            raise JettaggerError(f"{path} is a folder, not a file")
        if path.stat().st_size == 0:
            raise JettaggerError(f"{path} is empty (0 bytes)")
    return _container(location)(location, opening)


def _container(location: str) -> Callable[[str, Opening], Source]:
    first = beginning(location, LONGEST)
    if first.startswith(b"root"):
        return RootSource
    if first.startswith(b"\x89HDF\r\n\x1a\n"):
        from jettagger.data.containers.hdf5 import Hdf5Source

        return Hdf5Source
    if first.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")):
        from jettagger.data.containers.numpy_archive import NumpySource

        return NumpySource
    if first.startswith(b"PAR1"):
        from jettagger.data.containers.parquet import ParquetSource

        return ParquetSource
    raise JettaggerError(
        f"{location} is of no known container, whatever its suffix '{Path(location).suffix}' says: it begins with "
        f"{first!r} (known: {', '.join(KNOWN)})"
    )


def opened(location: str, opening: Opening) -> Source:
    """The source; the last few stay open for the next step that looks at them, unless the file changes.

    Each thread, and a process that was forked, opens its own: two that share an open file would move each other's
    place in it.
    """
    reader = os.getpid(), get_ident()
    if is_remote(location):
        return _opened(location, opening, reader)
    if not Path(location).exists():
        raise JettaggerError(f"no such file: {location}")
    status = Path(location).stat()
    return _opened(location, opening, reader, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=16)
def _opened(location: str, opening: Opening, _reader: tuple[int, int], *_status: int) -> Source:
    return source_of(location, opening)
