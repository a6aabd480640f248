"""Batches of a prepared dataset, in a random order that is the same however often training is interrupted.

Shapes: R jets of a split, P jets of a pool, B jets of a batch, T targets.
"""

import copy
import math
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from jettagger import randomness
from jettagger.batch import Batch, Inputs, InputSpec, Part, Rows
from jettagger.data.order import EpochOrder, Order, Positions
from jettagger.data.prefetch import ahead
from jettagger.data.prepared import Prepared
from jettagger.data.rows import RawInputs, offsets_of, take, to_tensors
from jettagger.data.spectra import loss_weights

POOL_BYTES = 512 * 2**20
"""Inputs that are held in memory at a time. What is larger is shuffled in pools of half of it: one in use, the
next one on its way from the disk."""
PART = 1_000_000
"""Jets whose random numbers are drawn at a time."""


class Batches:
    """The jets `rows_R` of a dataset, batch by batch.

    `inputs` is what the model looks at (default: everything): the rest is neither read nor carried.
    `weights_R` is what each jet counts in the loss (default: its event weight); with `factor_R` jets are drawn
    in proportion to it, as many in an epoch as there are. `targets_RT` are regression targets as the loss sees
    them, `spectator_R` is a variable that scores are decorrelated from: a batch has them if they are given.
    `shuffle=(seed, member)` gives each epoch a random order of its own; without, batches come in the dataset's
    order.
    `rank` of `ranks` gets its part of every batch: the parts of all ranks, one after the other, are the batch. It
    is empty where there are more ranks than jets.
    """

    def __init__(
        self,
        prepared: Prepared,
        rows_R: NDArray[np.integer],
        batch_size: int,
        *,
        weights_R: NDArray[np.float32] | None = None,
        factor_R: NDArray[np.float32] | None = None,
        targets_RT: NDArray[np.float32] | None = None,
        spectator_R: NDArray[np.float32] | None = None,
        shuffle: tuple[int, int] | None = None,
        inputs: InputSpec | None = None,
        pool_bytes: int = POOL_BYTES,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.prepared = prepared
        self.inputs = prepared.spec if inputs is None else inputs
        weights = loss_weights(prepared, rows_R) if weights_R is None else weights_R
        if (rows_R[1:] < rows_R[:-1]).any():
            order = np.argsort(rows_R, kind="stable")
            rows_R, weights = rows_R[order], weights[order]
            factor_R, targets_RT, spectator_R = (
                None if x is None else x[order] for x in (factor_R, targets_RT, spectator_R)
            )
        # 8 bytes a jet are held, however large the inputs.
        self.rows_R = rows_R.astype(np.int32) if len(prepared) < 2**31 else rows_R
        self.weights_R = weights
        self.targets_RT, self.spectator_R = targets_RT, spectator_R
        self.jets = len(rows_R)
        self.order = Order(
            self.jets,
            batch_size,
            shuffle=shuffle,
            pool_jets=_pool_jets(self.jets, bytes_per_jet(prepared, self.inputs), pool_bytes),
            factor_R=factor_R,
        )
        self.steps = self.order.steps
        self._rank, self._ranks = rank, ranks
        self._resident: list[_Pool] = []  # one, once it is read; shared with what `reshuffled` returns

    def reshuffled(self, shuffle: tuple[int, int]) -> "Batches":
        """The same jets in another random order; what is held in memory is held once."""
        other = copy.copy(self)
        other.order = self.order.reshuffled(shuffle)
        return other

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch `start` on."""
        if self.order.pools == 1:
            pools = self._pools(epoch, start)
        else:
            pools = ahead(self._pools(epoch, start), 1)
        try:
            for pool in pools:
                for share in pool.batches:
                    yield self._batch(pool, share)
                del pool  # before the next one is taken
        finally:
            pools.close()

    def shares(self, epoch: int, start: int = 0) -> "Iterator[Share]":
        """Positions in `rows_R` of each batch's jets, and which of them are this rank's."""
        order = self.order.epoch(epoch)
        for number, steps in self.order.steps_from(start):
            yield from self._shares(order, number, steps)

    def sample(self, jets: int, seed: int) -> Inputs:
        """Inputs of at most `jets` jets, chosen at random by `seed`: what normalisation is measured on."""
        chosen = self.rows_R.astype(np.int64)
        if len(chosen) > jets:
            score = np.concatenate(
                [
                    randomness.uniform_of(part, seed, "normalisation")
                    for part in np.array_split(chosen, len(chosen) // PART + 1)
                ]
            )
            chosen = np.sort(chosen[np.argsort(score, kind="stable")[:jets]])
        return to_tensors(self.prepared.read(chosen, self.inputs))

    def read(self, positions_P: Positions) -> RawInputs:
        """The inputs at ascending positions in `rows_R`."""
        return self.prepared.read(self.rows_R[positions_P].astype(np.int64), self.inputs)

    def batch_of(self, inputs: Inputs, positions_B: Positions, part: Part | None = None) -> Batch:
        """Inputs with the labels, weights, indices and targets of their jets."""

        def picked(x_R: NDArray[np.float32] | None) -> torch.Tensor | None:
            return None if x_R is None else torch.from_numpy(x_R[positions_B])

        rows_B = self.rows_R[positions_B].astype(np.int64)
        return Batch(
            inputs=inputs,
            labels_B=torch.from_numpy(self.prepared.labels_J[rows_B].astype(np.int64)),
            weights_B=torch.from_numpy(self.weights_R[positions_B]),
            index_B=torch.from_numpy(rows_B),
            part=part,
            targets_BT=picked(self.targets_RT),
            spectator_B=picked(self.spectator_R),
        )

    def _pools(self, epoch: int, start: int) -> "Generator[_Pool, None, None]":
        order = self.order.epoch(epoch)
        for number, steps in self.order.steps_from(start):
            yield self._load(list(self._shares(order, number, steps)))

    def _shares(self, order: EpochOrder, pool: int, steps: range) -> "Iterator[Share]":
        """A pool's batches, and this rank's part of each."""
        positions_P, edges = order.positions(pool), self.order.batch_edges[pool]
        for step in steps:
            first, size = edges[step], edges[step + 1] - edges[step]
            low, high = (first + size * part // self._ranks for part in (self._rank, self._rank + 1))
            yield Share(positions_P[first : first + size], low - first, high - first, self._ranks)

    def _load(self, batches: "list[Share]") -> "_Pool":
        """The inputs of some batches, in memory; kept for all epochs if all there is fits."""
        if self._resident:
            return self._resident[0]._replace(batches=batches)
        if self.order.pools == 1:
            positions_P: Positions = np.arange(self.jets)
        else:
            positions_P = _ascending(np.concatenate([share.mine for share in batches]))
        raw = self.read(positions_P)
        pool = _Pool(batches, positions_P, raw, offsets_of(raw), self._lengths(batches, positions_P, raw))
        if self.order.pools == 1:
            self._resident.append(pool._replace(batches=[]))
        return pool

    def _lengths(self, batches: "list[Share]", positions_P: Positions, raw: RawInputs) -> "_Lengths":
        """The particles of all jets of a pool, also of those that other ranks read."""
        if self._ranks == 1 or self.order.pools == 1:
            return _Lengths(positions_P, {name: x.lengths_J for name, x in raw.collections.items()})
        positions_A = _ascending(np.concatenate([share.batch_B for share in batches]))
        return _Lengths(
            positions_A, self.prepared.lengths(self.rows_R[positions_A].astype(np.int64), self.inputs)
        )

    def _batch(self, pool: "_Pool", share: "Share") -> Batch:
        rows_B = share.mine if self.order.pools == 1 else np.searchsorted(pool.positions_P, share.mine)
        inputs = take(pool.raw, pool.offsets, rows_B.astype(np.int64))
        return self.batch_of(inputs, share.mine, share.part(pool.lengths.of))


class Share(NamedTuple):
    """The jets of a batch, by their positions among the R, and which of them are one rank's."""

    batch_B: Positions
    low: int
    high: int
    ranks: int

    @property
    def mine(self) -> Positions:
        """The jets of this rank."""
        return self.batch_B[self.low : self.high]

    def part(self, lengths_of: Callable[[Positions], dict[str, NDArray[np.int32]]]) -> Part | None:
        """Where they lie in the batch; `lengths_of` gives the particles of jets, for each collection."""
        if self.ranks == 1:
            return None
        particles = {}
        for name, lengths_B in lengths_of(self.batch_B).items():
            first, end, total = (
                int(lengths_B[:n].sum(dtype=np.int64)) for n in (self.low, self.high, len(lengths_B))
            )
            particles[name] = Rows(first, end - first, total)
        return Part(Rows(self.low, self.high - self.low, len(self.batch_B)), particles)


class _Lengths(NamedTuple):
    """How many particles the jets at some ascending positions have."""

    positions_A: Positions
    lengths: dict[str, NDArray[np.int32]]

    def of(self, positions_B: Positions) -> dict[str, NDArray[np.int32]]:
        """Those of some of the jets."""
        at_B = np.searchsorted(self.positions_A, positions_B)
        return {name: lengths_A[at_B] for name, lengths_A in self.lengths.items()}


class _Pool(NamedTuple):
    """Jets in memory, and the batches that are made of them."""

    batches: list[Share]
    positions_P: Positions
    raw: RawInputs
    offsets: dict[str, NDArray[np.int64]]
    lengths: _Lengths


def _ascending(positions: Positions) -> Positions:
    """The same in order, each once: where jets are drawn, one can come more than once."""
    ordered: Positions = np.sort(positions)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def bytes_per_jet(prepared: Prepared, inputs: InputSpec) -> float:
    """Mean size in memory of what a model that looks at `inputs` needs of a jet: 4 bytes a value."""
    values = 0
    for shard in prepared.shards:
        values += math.prod(shard.jet.shape) if inputs.jet and shard.jet is not None else 0
        for wanted in inputs.collections:
            blocks = shard.collections[wanted.name]
            values += sum(math.prod(block.shape) for block in blocks if block is not None)
    return (1 + 4 * values) / max(len(prepared), 1)


def _pool_jets(jets: int, size: float, pool_bytes: int) -> int:
    most = max(int(pool_bytes / size), 1)
    return most if jets <= most else max(most // 2, 1)
