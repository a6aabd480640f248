"""One shard of a prepared dataset: an HDF5 file of contiguous arrays that are memory-mapped when they are read.

A shard carries the checksum of what it holds (XXH3, 128 bits, over every array's name, type, shape and bytes,
and over the counts), so that one that a crash of the machine left half on disk is known for what it is.

Shapes: J jets, N particles, F features, K coordinates, V values.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from jettagger.batch import COORDINATES, InputSpec
from jettagger.data.columns import Table
from jettagger.data.rows import RawCollection, RawInputs
from jettagger.data.sample_schema import Storage
from jettagger.data.sink import Sink
from jettagger.errors import JettaggerError

FORMAT = 3
"""Raised by hand whenever the same config and files would give other bytes (tests/data hold golden ones)."""
SMALLEST_NORMAL = 2.0**-14
"""Below it float16 loses digits one by one; relative errors are measured above it."""


class Block(NamedTuple):
    """Where an array lies in a shard. Nothing is open: thousands of shards would be thousands of open files."""

    path: Path
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def mapped(self) -> NDArray[Any]:
        """The array, memory-mapped."""
        if not self.nbytes:
            return np.empty(self.shape, self.dtype)
        try:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise JettaggerError(f"{self.path} cannot be read any more: {error}") from error


class CollectionBlocks(NamedTuple):
    """A collection's arrays: see `RawCollection`."""

    values: Block
    lengths: Block
    coordinates: Block | None


class Shard(NamedTuple):
    """One shard."""

    columns: dict[str, Block]
    """One value a jet: entry, index, labels, weights, group, targets/<name>, spectators/<name>, extras/<name>."""
    jet: Block | None
    collections: dict[str, CollectionBlocks]

    def mapped(self, inputs: InputSpec) -> RawInputs:
        """What a model looks at, memory-mapped, in the type that it is stored in."""
        collections = {}
        for wanted in inputs.collections:
            values, lengths, coordinates = self.collections[wanted.name]
            collections[wanted.name] = RawCollection(
                values.mapped(), lengths.mapped(), None if coordinates is None else coordinates.mapped()
            )
        return RawInputs(self.jet.mapped() if inputs.jet and self.jet else None, collections)


class Rounding(NamedTuple):
    """What float16 did to the values of a feature."""

    absolute: float
    """Largest |stored - value|."""
    relative: float
    """Largest |stored - value| / |value| where |value| is at least 2**-14, float16's smallest normal number."""


class Place(NamedTuple):
    """An array in a file: what `Block` says, as plain values."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


class Contents(NamedTuple):
    """What a shard says of itself."""

    counts: dict[str, int]
    rounding: dict[str, Rounding]
    """By `<collection>.<feature>`; empty in float32."""
    checksum: str
    places: dict[str, Place]


def arrays_of(
    table: Table, spec: InputSpec, storage: Storage = "float32"
) -> tuple[dict[str, NDArray[Any]], dict[str, Rounding]]:
    """All arrays of a shard by name, as they are stored; and what float16 did to them."""
    arrays: dict[str, NDArray[Any]] = {
        name: getattr(table, f"{name}_J") for name in ("entry", "index", "labels", "weights", "group")
    }
    arrays |= {f"targets/{name}": values for name, values in table.targets.items()}
    arrays |= {f"spectators/{name}": values for name, values in table.spectators.items()}
    arrays |= {f"extras/{name}": values for name, values in table.extras.items()}
    if table.inputs.jet_JF is not None:
        arrays["jet"] = table.inputs.jet_JF
    rounding: dict[str, Rounding] = {}
    for wanted in spec.collections:
        collection = table.inputs.collections[wanted.name]
        arrays[f"collections/{wanted.name}/lengths"] = collection.lengths_J
        particles = {"values": (collection.values_NF, [feature.name for feature in wanted.features])}
        if collection.coordinates_NK is not None:
            particles["coordinates"] = (collection.coordinates_NK, [f"coordinates.{x}" for x in COORDINATES])
        for kind, (values, names) in particles.items():
            if storage == "float16":
                halves, errors = halved(values, [f"{wanted.name}.{name}" for name in names])
                rounding |= errors
                arrays[f"collections/{wanted.name}/{kind}"] = halves
            else:
                arrays[f"collections/{wanted.name}/{kind}"] = values
    return {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}, rounding


def write_shard(
    path: Path, arrays: Mapping[str, NDArray[Any]], counts: dict[str, int], rounding: dict[str, Rounding]
) -> Contents:
    """Writes `arrays_of` a table. Raises OSError where the disk does not take them."""
    about = _about(counts, rounding)
    digest = checksum(about, arrays.items())
    places = {}
    with Sink(path) as sink:
        with h5py.File(sink, "w", libver="latest") as file:
            file.attrs["format"] = FORMAT
            file.attrs["about"] = about
            file.attrs["checksum"] = digest
            for name, values in arrays.items():
                # Contiguous and uncompressed, so that it can be memory-mapped; without time stamps.
                places[name] = _place(file.create_dataset(name, data=values, track_times=False))
        if sink.error is not None:
            raise sink.error
    return Contents(counts, rounding, digest, places)


def _place(dataset: h5py.Dataset) -> Place:
    return Place(dataset.dtype.str, dataset.shape, dataset.id.get_offset() or 0)


def _about(counts: Mapping[str, int], rounding: Mapping[str, Rounding]) -> str:
    return json.dumps({"counts": counts, "rounding": rounding})


def halved(
    values_VF: NDArray[np.float32], names: Sequence[str]
) -> tuple[NDArray[np.float16], dict[str, Rounding]]:
    """Values as float16, and the error of each column. Raises JettaggerError for one that float16 cannot hold."""
    with np.errstate(over="ignore"):
        halves_VF = values_VF.astype(np.float16)
    errors = {}
    for column, name in enumerate(names):
        value, half = values_VF[:, column], halves_VF[:, column].astype(np.float32)
        finite = np.isfinite(value)
        if lost := int(np.count_nonzero(finite & ~np.isfinite(half))):
            worst = float(np.abs(value[finite]).max())
            raise JettaggerError(
                f"data.storage: float16 ends at 65504, and {lost} values of inputs.{name} are beyond it (the "
                f"largest is {worst:g}): scale the feature in its expression, or take `storage: float32`"
            )
        error = np.abs(np.subtract(half, value, where=finite, out=np.zeros_like(value)))
        normal = finite & (np.abs(value) >= SMALLEST_NORMAL)
        relative = error[normal] / np.abs(value[normal])
        errors[name] = Rounding(float(error.max(initial=0)), float(relative.max(initial=0)))
    return halves_VF, errors


def checksum(about: str, arrays: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """XXH3 of all that a shard holds."""
    import xxhash

    digest = xxhash.xxh3_128(about.encode())
    for name, values in arrays:
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def look_into(path: Path) -> Contents:
    """What is in a shard. Raises JettaggerError if it is damaged, down to the last bit of what it holds."""
    places: dict[str, Place] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            places[name] = _place(item)

    try:
        with h5py.File(path, "r") as file:
            about, expected = json.loads(file.attrs["about"]), file.attrs["checksum"]
            file.visititems(visit)
        rounding = {name: Rounding(*errors) for name, errors in about["rounding"].items()}
        found = Contents(about["counts"], rounding, expected, dict(sorted(places.items())))
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise JettaggerError(f"{path} is damaged: {error}") from error
    check(path, found)
    return found


def check(path: Path, contents: Contents) -> None:
    """Raises JettaggerError unless the shard on disk holds what `contents` say."""
    arrays = ((name, block(path, place).mapped()) for name, place in contents.places.items())
    if checksum(_about(contents.counts, contents.rounding), arrays) != contents.checksum:
        raise JettaggerError(f"{path} is damaged: its checksum is not that of what it holds")


def block(path: Path, place: Place) -> Block:
    """An array of a file."""
    return Block(path, np.dtype(place.dtype), place.offset, tuple(place.shape))


def shard_at(path: Path, places: Mapping[str, Place]) -> Shard:
    """The shard whose arrays lie at `places`; nothing is opened."""
    blocks = {name: block(path, place) for name, place in places.items()}
    particles = sorted({name.split("/")[1] for name in blocks if name.startswith("collections/")})
    collections = {
        name: CollectionBlocks(
            blocks[f"collections/{name}/values"],
            blocks[f"collections/{name}/lengths"],
            blocks.get(f"collections/{name}/coordinates"),
        )
        for name in particles
    }
    columns = {
        name: one for name, one in blocks.items() if name != "jet" and not name.startswith("collections/")
    }
    return Shard(columns, blocks.get("jet"), collections)


def column(shards: Sequence[Shard], name: str) -> NDArray[Any]:
    """One value a jet, of all shards."""
    return np.concatenate([shard.columns[name].mapped() for shard in shards])
