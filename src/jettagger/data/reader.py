"""Files of any container, opened with care."""

from functools import lru_cache
from pathlib import Path

from jettagger.data.containers.base import Opening, Source
from jettagger.data.containers.root import RootSource
from jettagger.data.locations import is_remote
from jettagger.data.schema import DataConfig
from jettagger.errors import JettaggerError


def opening_of(config: DataConfig) -> Opening:
    """What a config says of how its files are read."""
    columns = tuple((name, tuple(names)) for name, names in config.data.columns.items())
    return Opening(config.data.tree, columns)


def source_of(location: str | Path, opening: Opening = Opening()) -> Source:  # noqa: B008 - it is immutable
    """The file at a path or URL, of the container that its content or name tells."""
    location = str(location)
    if not is_remote(location):
        path = Path(location)
        if not path.exists():
            raise JettaggerError(f"no such file: {path}")
        if path.is_dir():
            raise JettaggerError(f"{path} is a folder, not a file")
        if path.stat().st_size == 0:
            raise JettaggerError(f"{path} is empty (0 bytes)")
    return RootSource(location, opening)


def opened(location: str, opening: Opening) -> Source:
    """The source; the last few stay open for the next step that looks at them, unless the file changes."""
    if is_remote(location):
        return _opened(location, opening)
    if not Path(location).exists():
        raise JettaggerError(f"no such file: {location}")
    status = Path(location).stat()
    return _opened(location, opening, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=16)
def _opened(location: str, opening: Opening, *_status: int) -> Source:
    return source_of(location, opening)
