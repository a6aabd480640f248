"""Splits, and batches in a random order that is the same however often training is interrupted.

Shapes: J jets of the dataset, R jets of a split, B jets of a batch, C classes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.batch import Batch, Inputs, InputSpec
from jettagger.data.prepared import Prepared
from jettagger.data.rows import RawInputs, offsets_of, take, to_tensors
from jettagger.errors import JettaggerError

POOL_BYTES = 512 * 2**20
"""Inputs that are held in memory at a time. What is larger is shuffled in pools of many short pieces."""
PIECE = 64
"""Jets that are read from disk together."""
PART = 1_000_000
"""Jets whose random numbers are drawn at a time."""


def split(prepared: Prepared, validation: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Training and validation rows, by a hash of each jet's group: stable when files are added.

    Jets of one group (event) are on one side. Raises JettaggerError when a class is absent from a side.
    """
    group_J = prepared.groups
    held_out = np.concatenate(
        [randomness.uniform_of(part, 0, "validation") < validation for part in _parts(group_J)]
    )
    sides = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    for side, rows in zip(("training", "validation"), sides, strict=True):
        found = np.bincount(prepared.labels_J[rows], minlength=len(prepared.classes))
        for name, jets in zip(prepared.classes, found, strict=True):
            if not jets:
                raise JettaggerError(
                    f"classes.{name}: no jet on the {side} side of the split (data.validation: {validation}, "
                    f"{len(np.unique(group_J))} groups of jets that stay together)"
                )
    return sides


def training_weights(prepared: Prepared, rows_R: NDArray[np.int64], *, balance: bool) -> NDArray[np.float32]:
    """Weight of each row in the loss: the event weight, times a factor a class if `balance`.

    The factors give every class the same sum of weights, and leave the sum over all classes as it was.
    """
    weights_R = prepared.weights_J[rows_R]
    if balance:
        labels_R = prepared.labels_J[rows_R]
        sums_C = np.bincount(labels_R, weights_R, minlength=len(prepared.classes))
        if (sums_C <= 0).any():
            name = prepared.classes[int(sums_C.argmin())]
            raise JettaggerError(
                f"weights.training.balance: the event weights of class {name} add up to {sums_C.min():g}"
            )
        weights_R = weights_R * (sums_C.mean() / sums_C)[labels_R]
    with np.errstate(over="ignore"):
        floats_R = weights_R.astype(np.float32)
    lost_R = ~np.isfinite(floats_R) | ((floats_R == 0) & (weights_R != 0))
    if lost_R.any():
        raise JettaggerError(
            f"weights.event: a weight of {weights_R[lost_R][0]:g} is beyond float32: scale the weights to about 1"
        )
    return floats_R


class Batches:
    """The jets `rows_R` of a dataset, batch by batch.

    `inputs` is what the model looks at (default: everything): the rest is neither read nor carried.
    With `shuffle=(seed, member)` each epoch has its own random order, keyed by (seed, member, epoch); without,
    batches come in the dataset's order. All batches of an epoch are of the same size, but for one jet.
    """

    def __init__(
        self,
        prepared: Prepared,
        rows_R: NDArray[np.int64],
        batch_size: int,
        *,
        weights_R: NDArray[np.float32] | None = None,
        shuffle: tuple[int, int] | None = None,
        inputs: InputSpec | None = None,
        pool_bytes: int = POOL_BYTES,
    ) -> None:
        self._prepared = prepared
        self._inputs = prepared.spec if inputs is None else inputs
        weights = prepared.weights_J[rows_R].astype(np.float32) if weights_R is None else weights_R
        if (rows_R[1:] < rows_R[:-1]).any():
            order = np.argsort(rows_R, kind="stable")
            rows_R, weights = rows_R[order], weights[order]
        self._rows, self._weights = rows_R, weights
        self._shuffle = shuffle
        self.jets = len(rows_R)
        self._pool_edges = _even_edges(
            self.jets, max(int(pool_bytes / bytes_per_jet(prepared, self._inputs)), 1)
        )
        self._batch_edges = [_even_edges(jets, batch_size) for jets in np.diff(self._pool_edges)]
        self.steps = sum(len(edges) - 1 for edges in self._batch_edges)
        self._resident: _Pool | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch `start` on."""
        first = 0
        for number, edges in enumerate(self._batch_edges):
            steps = range(max(start - first, 0), len(edges) - 1)
            first += len(edges) - 1
            if not steps:
                continue
            positions_P = self._positions(epoch, number)
            pool = self._load(np.sort(positions_P))
            for step in steps:
                yield self._batch(pool, positions_P[edges[step] : edges[step + 1]])
            del pool  # before the next one is read

    def sample(self, jets: int, seed: int) -> Inputs:
        """Inputs of at most `jets` jets, chosen at random by `seed`: what normalisation is measured on."""
        chosen = self._rows
        if len(chosen) > jets:
            score = np.concatenate(
                [randomness.uniform_of(part, seed, "normalisation") for part in _parts(chosen)]
            )
            chosen = np.sort(chosen[np.argsort(score, kind="stable")[:jets]])
        return to_tensors(self._prepared.read(chosen, self._inputs))

    def _positions(self, epoch: int, pool: int) -> NDArray[np.int64]:
        """Positions in `_rows` of a pool's jets, in the order of the epoch.

        What fits into one pool is a plain permutation. Otherwise short pieces of neighbours are drawn at random
        into pools, and within a pool jets are shuffled.
        """
        low, high = self._pool_edges[pool : pool + 2]
        if self._shuffle is None:
            return np.arange(low, high)
        seed, member = self._shuffle
        generator = randomness.numpy_generator(seed, "batches", member, epoch)
        if len(self._pool_edges) == 2:
            return generator.permutation(self.jets)
        begin_Q = generator.permutation(-(-self.jets // PIECE)) * PIECE
        end_Q = np.minimum(begin_Q + PIECE, self.jets)
        drawn_Q = np.cumsum(end_Q - begin_Q)
        first, last = np.searchsorted(drawn_Q, low, "right"), np.searchsorted(drawn_Q, high)
        pieces = [
            np.arange(*ends) for ends in zip(begin_Q[first : last + 1], end_Q[first : last + 1], strict=True)
        ]
        skipped = low - (drawn_Q[first] - len(pieces[0]))
        positions_P = np.concatenate(pieces)[skipped : skipped + high - low]
        return randomness.numpy_generator(seed, "batches", member, epoch, pool).permutation(positions_P)

    def _load(self, positions_P: NDArray[np.int64]) -> "_Pool":
        """The inputs at ascending positions, in memory; kept for all epochs if they are all there is."""
        if self._resident is not None:
            return self._resident
        raw = self._prepared.read(self._rows[positions_P], self._inputs)
        pool = _Pool(positions_P, raw, offsets_of(raw))
        if len(self._pool_edges) == 2:
            self._resident = pool
        return pool

    def _batch(self, pool: "_Pool", positions_B: NDArray[np.int64]) -> Batch:
        rows_B = self._rows[positions_B]
        return Batch(
            inputs=take(pool.raw, pool.offsets, np.searchsorted(pool.positions_P, positions_B)),
            labels_B=torch.from_numpy(self._prepared.labels_J[rows_B]),
            weights_B=torch.from_numpy(self._weights[positions_B]),
            index_B=torch.from_numpy(rows_B),
        )


class _Pool(NamedTuple):
    """Jets in memory."""

    positions_P: NDArray[np.int64]
    raw: RawInputs
    offsets: dict[str, NDArray[np.int64]]


def bytes_per_jet(prepared: Prepared, inputs: InputSpec) -> float:
    """Mean size in memory of what a model that looks at `inputs` needs of a jet."""
    total = 1
    for shard in prepared.shards:
        total += shard.jet.nbytes if inputs.jet and shard.jet is not None else 0
        for wanted in inputs.collections:
            total += sum(block.nbytes for block in shard.collections[wanted.name] if block is not None)
    return total / max(len(prepared), 1)


def _parts(values_J: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Short pieces, so that what is computed of them needs little memory at a time."""
    return np.array_split(values_J, len(values_J) // PART + 1)


def _even_edges(jets: int, most: int) -> NDArray[np.int64]:
    """Edges of the fewest pieces of at most `most` jets, even but for one jet: no batch is left tiny."""
    pieces = max(-(-int(jets) // most), 1)
    return np.arange(pieces + 1) * int(jets) // pieces
