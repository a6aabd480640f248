"""One shard of a prepared dataset: an HDF5 file of contiguous arrays that are memory-mapped when they are read.

Shapes: J jets, N particles, F features, K coordinates.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from jettagger.batch import InputSpec
from jettagger.data.columns import Table
from jettagger.data.rows import RawCollection, RawInputs
from jettagger.errors import JettaggerError

FORMAT = 2
"""Raised by hand whenever the same config and files would give other bytes (tests/data hold golden ones)."""


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
    """One value a jet: entry, labels, weights, group, spectators/<name>, extras/<name>."""
    jet: Block | None
    collections: dict[str, CollectionBlocks]

    def mapped(self, inputs: InputSpec) -> RawInputs:
        """What a model looks at, memory-mapped."""
        collections = {}
        for wanted in inputs.collections:
            values, lengths, coordinates = self.collections[wanted.name]
            collections[wanted.name] = RawCollection(
                values.mapped(), lengths.mapped(), None if coordinates is None else coordinates.mapped()
            )
        return RawInputs(self.jet.mapped() if inputs.jet and self.jet else None, collections)


def write_shard(path: Path, table: Table) -> None:
    """Writes the selected jets of a chunk, with their counts."""
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["format"] = FORMAT
        file.attrs["counts"] = json.dumps(table.counts)
        for name in ("entry", "index", "labels", "weights", "group"):
            _write(file, name, getattr(table, f"{name}_J"))
        for kind in ("spectators", "extras"):
            for name, values in getattr(table, kind).items():
                _write(file, f"{kind}/{name}", values)
        if table.inputs.jet_JF is not None:
            _write(file, "jet", table.inputs.jet_JF)
        for name, collection in table.inputs.collections.items():
            _write(file, f"collections/{name}/values", collection.values_NF)
            _write(file, f"collections/{name}/lengths", collection.lengths_J)
            if collection.coordinates_NK is not None:
                _write(file, f"collections/{name}/coordinates", collection.coordinates_NK)


def _write(file: h5py.File, name: str, values: NDArray[Any]) -> None:
    """Contiguous and uncompressed, so that it can be memory-mapped; without time stamps."""
    file.create_dataset(name, data=np.ascontiguousarray(values), track_times=False)


def open_shard(path: Path) -> Shard:
    """Where everything lies in a shard."""

    def block(dataset: h5py.Dataset) -> Block:
        return Block(path, dataset.dtype, dataset.id.get_offset() or 0, dataset.shape)

    with h5py.File(path, "r") as file:
        columns = {name: block(file[name]) for name in ("entry", "index", "labels", "weights", "group")}
        for kind in ("spectators", "extras"):
            columns |= {f"{kind}/{name}": block(dataset) for name, dataset in file.get(kind, {}).items()}
        collections = {
            name: CollectionBlocks(
                block(group["values"]),
                block(group["lengths"]),
                block(group["coordinates"]) if "coordinates" in group else None,
            )
            for name, group in file.get("collections", {}).items()
        }
        return Shard(columns, block(file["jet"]) if "jet" in file else None, collections)


def column(shards: Sequence[Shard], name: str) -> NDArray[Any]:
    """One value a jet, of all shards."""
    return np.concatenate([shard.columns[name].mapped() for shard in shards])
