"""What a prepared dataset says of itself: `manifest.json`, the same bytes however it was filled.

Beside it, `verified.json` remembers size, date and inode that each shard had when its checksum was last found
right: a shard that still has them is not read again. It differs from disk to disk, so it is no part of the manifest.
"""

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from jettagger.data.asides import tidy, written_aside
from jettagger.data.shards import FORMAT, Contents, Place, Rounding, check
from jettagger.errors import JettaggerError

MANIFEST = "manifest.json"
VERIFIED = "verified.json"


class Skipped(NamedTuple):
    """A file that `data.on_error: skip` left out."""

    path: str
    sample: str
    reason: str


class Stamp(NamedTuple):
    """What changes when a file is written again."""

    size: int
    mtime_ns: int
    inode: int


class ShardRecord(NamedTuple):
    """What the manifest says of a shard."""

    name: str
    checksum: str
    """XXH3, 128 bits, of all that the shard holds."""
    size: int
    """Bytes."""
    path: str
    """The file it was made of."""
    identity: str
    """That file's: it changes with the content, not with the name."""
    sample: str
    jets: int
    counts: dict[str, int]
    rounding: dict[str, Rounding]
    """What float16 did to each particle feature; empty in float32."""
    places: dict[str, Place]

    @property
    def contents(self) -> Contents:
        """What the shard should hold."""
        return Contents(self.counts, self.rounding, self.checksum, self.places)


class Manifest(NamedTuple):
    """All shards, and what was left out."""

    key: str
    """Of the files that are in it."""
    records: tuple[ShardRecord, ...]
    skipped: tuple[Skipped, ...]


def stamp_of(path: Path) -> Stamp:
    """What the file is like now."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a dataset; None where there is none. Raises JettaggerError for one that is damaged."""
    path = directory / MANIFEST
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] == FORMAT:
            skipped = tuple(Skipped(**one) for one in stored["skipped"])
            return Manifest(stored["key"], tuple(map(_record, stored["shards"])), skipped)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise JettaggerError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JettaggerError(f"{path} is damaged: delete it, and prepare again: shards are kept") from error
    raise JettaggerError(
        f"{directory}: prepared data of format {stored['format']}, this version reads {FORMAT}: delete "
        "them and prepare again"
    )


def _record(stored: dict[str, Any]) -> ShardRecord:
    rounding = {name: Rounding(*errors) for name, errors in stored.pop("rounding").items()}
    places = {
        name: Place(dtype, tuple(shape), offset)
        for name, (dtype, shape, offset) in stored.pop("places").items()
    }
    return ShardRecord(**stored, rounding=rounding, places=places)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes it, whole or not at all: one line a shard. Raises OSError."""
    lines = {
        "shards": [json.dumps(record._asdict(), ensure_ascii=False) for record in manifest.records],
        "skipped": [json.dumps(one._asdict(), ensure_ascii=False) for one in manifest.skipped],
    }
    tables = [f'"{name}": [\n' + ",\n".join(rows) + "\n]" for name, rows in lines.items()]
    text = ",\n".join([f'{{"format": {FORMAT}, "key": "{manifest.key}"', *tables]) + "}\n"
    with written_aside(directory / MANIFEST) as aside:
        aside.write_text(text, encoding="utf-8")
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(directory / MANIFEST)


def read_stamps(directory: Path) -> dict[str, Stamp]:
    """What the shards were like when they were last found right; nothing where that is not known."""
    try:
        stored = json.loads((directory / VERIFIED).read_text(encoding="utf-8"))
        return {name: Stamp(*values) for name, values in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # only what saves work is lost: every shard is read again


def write_stamps(directory: Path, stamps: Mapping[str, Stamp]) -> None:
    """Remembers them, if the folder can be written: where it cannot, shards are read again next time."""
    if stamps != read_stamps(directory) and os.access(directory, os.W_OK):
        tidy(directory)
        with suppress(OSError), written_aside(directory / VERIFIED) as aside:
            aside.write_text(json.dumps(stamps, indent=0) + "\n", encoding="utf-8")
            aside.replace(directory / VERIFIED)


def faults(
    directory: Path, records: Iterable[ShardRecord], stamps: dict[str, Stamp], *, verify: bool = False
) -> dict[str, str]:
    """Names of shards that are missing or damaged, and why; `stamps` are brought up to date.

    A shard is read only if its stamp differs from what is known of it, or with `verify`.
    """
    found: dict[str, str] = {}
    for record in records:
        path = directory / record.name
        known = stamps.pop(record.name, None)
        try:
            stamp = stamp_of(path)
            if stamp.size != record.size:
                raise JettaggerError(f"{path} is damaged: it has {stamp.size} bytes, not {record.size}")
            if verify or stamp != known:
                check(path, record.contents)
            stamps[record.name] = stamp
        except FileNotFoundError:
            found[record.name] = f"{path} is missing"
        except OSError as error:
            found[record.name] = f"{path} cannot be read: {error.strerror or error}"
        except JettaggerError as error:
            found[record.name] = str(error)
    return found
