"""The order of an epoch: which jets come when, the same however often training is interrupted.

What fits into memory is one pool, and its order a plain permutation. What does not is read in several pools.
Pieces of neighbouring jets are dealt to the pools from every stretch of the dataset in turn, so that each pool
holds the same share of every file and class, and within a pool jets are shuffled: the class fraction of batches
then has binomial spread, though files are sorted by class and no jet is read alone.

Shapes: R jets of a split, D draws of an epoch (R of them, some jets twice), P jets of a pool, B jets of a batch,
Q pieces.
"""

import copy

import numpy as np
from numpy.typing import NDArray

from jettagger import randomness

PIECE = 64
"""Jets that are read from disk together."""
Positions = NDArray[np.integer]


class Order:
    """The order of every epoch of R jets.

    With `shuffle=(seed, member)` each epoch has its own random order, keyed by (seed, member, epoch); without,
    jets come as they stand. With `factor_R` each epoch draws R jets in proportion to it: see `draws`.
    All batches of an epoch are of the same size, but for one jet.
    """

    def __init__(
        self,
        jets: int,
        batch_size: int,
        *,
        shuffle: tuple[int, int] | None,
        pool_jets: int,
        factor_R: NDArray[np.float32] | None = None,
    ) -> None:
        self._jets, self._shuffle, self._factor = jets, shuffle, factor_R
        self.pool_edges = even_edges(jets, pool_jets)
        self.batch_edges = [even_edges(size, batch_size) for size in np.diff(self.pool_edges)]
        self.steps = sum(len(edges) - 1 for edges in self.batch_edges)

    def reshuffled(self, shuffle: tuple[int, int]) -> "Order":
        """The same jets in the random order of another member."""
        other = copy.copy(self)
        other._shuffle = shuffle
        return other

    @property
    def pools(self) -> int:
        """Into how many pools an epoch is cut."""
        return len(self.batch_edges)

    @property
    def draws(self) -> bool:
        """Whether a jet can come more than once in an epoch."""
        return self._factor is not None

    def epoch(self, epoch: int) -> "EpochOrder":
        """The order of one epoch."""
        return EpochOrder(self._jets, self.pool_edges, self._shuffle, self._factor, epoch)

    def steps_from(self, start: int) -> list[tuple[int, range]]:
        """Pools that hold batches from batch `start` of the epoch on, each with the numbers of its own batches."""
        found, first = [], 0
        for pool, edges in enumerate(self.batch_edges):
            steps = range(max(start - first, 0), len(edges) - 1)
            first += len(edges) - 1
            if steps:
                found.append((pool, steps))
        return found


class EpochOrder:
    """One epoch: which jets are drawn, and which pool each comes in."""

    def __init__(
        self,
        jets: int,
        pool_edges: NDArray[np.int64],
        shuffle: tuple[int, int] | None,
        factor_R: NDArray[np.float32] | None,
        epoch: int,
    ) -> None:
        self._jets, self._pool_edges, self._epoch, self._shuffle = jets, pool_edges, epoch, shuffle
        self._drawn_D: Positions | None = None
        if factor_R is not None:
            assert shuffle is not None, "jets are drawn in a random order only"
            seed, member = shuffle
            self._drawn_D = draws(factor_R, randomness.numpy_generator(seed, "sampling", member, epoch))
        self._begin_Q: NDArray[np.int64] | None = None
        if shuffle is not None and len(pool_edges) > 2:
            seed, member = shuffle
            generator = randomness.numpy_generator(seed, "batches", member, epoch)
            self._begin_Q = _dealt(-(-jets // PIECE), len(pool_edges) - 1, generator) * PIECE

    def positions(self, pool: int) -> Positions:
        """Positions of a pool's jets among the R, in the order of the epoch."""
        low, high = self._pool_edges[pool : pool + 2]
        if self._shuffle is None:
            return np.arange(low, high)
        seed, member = self._shuffle
        if self._begin_Q is None:
            generator = randomness.numpy_generator(seed, "batches", member, self._epoch)
            slots_P = generator.permutation(self._jets)
        else:
            generator = randomness.numpy_generator(seed, "batches", member, self._epoch, pool)
            slots_P = generator.permutation(_between(self._begin_Q, self._jets, low, high))
        return slots_P if self._drawn_D is None else self._drawn_D[slots_P]


def draws(factor_R: NDArray[np.float32], generator: np.random.Generator) -> Positions:
    """R positions, ascending, each as often as its share of the factors asks for: R·f/Σf, rounded down or up.

    Systematic resampling (doi:10.1109/ISPA.2005.195385): equal steps through the cumulative sum from a random
    offset. Each file and class so gets what it is due, to about one jet; neighbours are shuffled first, so that
    what alternates in the files cannot fall into step.
    """
    pieces = -(-len(factor_R) // PIECE)
    within = generator.permuted(np.tile(np.arange(PIECE), (pieces, 1)), axis=1)
    order_R = (np.arange(pieces)[:, None] * PIECE + within).ravel()
    order_R = order_R[order_R < len(factor_R)]
    reached_R = np.cumsum(factor_R[order_R], dtype=np.float64)
    reached_R *= len(factor_R) / reached_R[-1]
    reached_R[reached_R >= reached_R[-1]] = len(factor_R)  # whatever the sum was rounded to
    ends_R = np.floor(reached_R + generator.random()).astype(np.int64)
    times_R = np.empty(len(factor_R), np.int64)
    times_R[order_R] = np.diff(ends_R, prepend=0)
    small = np.int32 if len(factor_R) < 2**31 else np.int64
    return np.repeat(np.arange(len(factor_R), dtype=small), times_R)


def _dealt(pieces: int, pools: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """All pieces, pool after pool: of every `pools` neighbouring pieces each pool gets one."""
    stretches = -(-pieces // pools)
    dealt = generator.permuted(np.tile(np.arange(pools), (stretches, 1)), axis=1).ravel()[:pieces]
    return np.argsort(dealt, kind="stable")


def _between(begin_Q: NDArray[np.int64], jets: int, low: int, high: int) -> NDArray[np.int64]:
    """What stands at low…high when the pieces are put one after the other."""
    end_Q = np.minimum(begin_Q + PIECE, jets)
    passed_Q = np.cumsum(end_Q - begin_Q)
    first, last = np.searchsorted(passed_Q, low, "right"), np.searchsorted(passed_Q, high)
    begin_Q, end_Q = begin_Q[first : last + 1], end_Q[first : last + 1]
    sizes_Q = end_Q - begin_Q
    reached_Q = np.cumsum(sizes_Q)
    every = np.repeat(begin_Q - (reached_Q - sizes_Q), sizes_Q) + np.arange(reached_Q[-1])
    skipped = low - (passed_Q[first] - sizes_Q[0])
    return np.asarray(every[skipped : skipped + high - low])


def even_edges(jets: int, most: int) -> NDArray[np.int64]:
    """Edges of the fewest pieces of at most `most` jets, even but for one jet: no batch is left tiny."""
    pieces = max(-(-int(jets) // most), 1)
    return np.arange(pieces + 1) * int(jets) // pieces
