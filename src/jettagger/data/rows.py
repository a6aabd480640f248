"""The inputs of some jets in memory: what is copied out of shards, and what becomes tensors.

Shapes: J jets, N particles of all jets, F features, K coordinates (eta, phi, pT), B jets of a batch.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from jettagger.batch import Inputs, Packed

Floats = NDArray[np.float32]


class RawCollection(NamedTuple):
    """The kept particles of J jets, one row each, jet after jet."""

    values_NF: Floats
    lengths_J: NDArray[np.int32]
    coordinates_NK: Floats | None


class RawInputs(NamedTuple):
    """Model inputs before normalisation; NaN where a value is missing."""

    jet_JF: Floats | None
    collections: dict[str, RawCollection]


def take(raw: RawInputs, offsets: Mapping[str, NDArray[np.int64]], rows_B: NDArray[np.int64]) -> Inputs:
    """The tensors of jets `rows_B`, in that order, from inputs in memory."""
    particles = {name: int(x.lengths_J[rows_B].sum()) for name, x in raw.collections.items()}
    return to_tensors(copied([(raw, offsets, rows_B)], raw, len(rows_B), particles))


def to_tensors(raw: RawInputs) -> Inputs:
    """NumPy columns as what a model takes, without a copy."""
    return Inputs(
        None if raw.jet_JF is None else torch.from_numpy(raw.jet_JF),
        {
            name: Packed(
                torch.from_numpy(collection.values_NF),
                torch.from_numpy(collection.lengths_J.astype(np.int64)),
                None if collection.coordinates_NK is None else torch.from_numpy(collection.coordinates_NK),
            )
            for name, collection in raw.collections.items()
        },
    )


def offsets_of(raw: RawInputs) -> dict[str, NDArray[np.int64]]:
    """For each collection: where each jet's particles begin, and the end."""
    return {name: _offsets(collection.lengths_J) for name, collection in raw.collections.items()}


def _offsets(lengths_J: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths_J, dtype=np.int64)])


Piece = tuple[RawInputs, Mapping[str, NDArray[np.int64]], NDArray[np.int64]]
"""Inputs, their offsets, and the rows that are wanted of them."""


def copied(pieces: Iterable[Piece], like: RawInputs, jets: int, particles: Mapping[str, int]) -> RawInputs:
    """The wanted jets of all pieces, one after the other, in arrays that are made once."""
    jet_JF = None if like.jet_JF is None else _rows_like(like.jet_JF, jets)
    collections = {
        name: RawCollection(
            _rows_like(x.values_NF, particles[name]),
            np.empty(jets, np.int32),
            None if x.coordinates_NK is None else _rows_like(x.coordinates_NK, particles[name]),
        )
        for name, x in like.collections.items()
    }
    done, done_of = 0, dict.fromkeys(collections, 0)
    for raw, offsets, rows in pieces:
        if jet_JF is not None and raw.jet_JF is not None:
            _copy(raw.jet_JF, rows, jet_JF, done)
        for name, into in collections.items():
            source = raw.collections[name]
            lengths = source.lengths_J[rows]
            into.lengths_J[done : done + len(rows)] = lengths
            ends = np.cumsum(lengths, dtype=np.int64)
            # Row n of the result is row start_of_its_jet + (n - first_row_of_its_jet) of the source.
            particle_rows = np.repeat(offsets[name][rows] - (ends - lengths), lengths)
            particle_rows += np.arange(len(particle_rows))
            _copy(source.values_NF, particle_rows, into.values_NF, done_of[name])
            if source.coordinates_NK is not None and into.coordinates_NK is not None:
                _copy(source.coordinates_NK, particle_rows, into.coordinates_NK, done_of[name])
            done_of[name] += len(particle_rows)
        done += len(rows)
    return RawInputs(jet_JF, collections)


def _rows_like(array: NDArray[Any], rows: int) -> Floats:
    """float32, whatever the array is stored in."""
    return np.empty((rows, array.shape[1]), np.float32)


def _copy(source: NDArray[Any], rows: NDArray[np.int64], into: NDArray[Any], at: int) -> None:
    if source.dtype != into.dtype:  # data.storage: float16
        into[at : at + len(rows)] = source[rows]
        return
    # Rows are valid: "clip" only spares NumPy the second copy that it makes to be able to raise.
    np.take(source, rows, axis=0, out=into[at : at + len(rows)], mode="clip")
