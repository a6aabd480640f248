"""How many jets there are: of each file, sample, class and side, after each cut.

Shapes: J jets, C classes, K cuts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class CutFlow(NamedTuple):
    """What the cuts leave of a file."""

    role: str
    sample: str
    file: str
    entries: int | None
    read: int
    """Jets."""
    alone: tuple[int, ...]
    """Jets that pass each cut by itself."""
    after: tuple[int, ...]
    """Jets that pass it and all cuts before."""
    of_class: dict[str, tuple[int, ...]]
    """Jets of each class: all, and then after each cut; empty without labels."""
    selected: int
    """Jets that pass everything and were looked at: what a damaged part holds is not among them."""
    sum_of_weights: float
    complete: bool
    """False where a fault kept it, or a part of it, from being looked at."""


class Yield(NamedTuple):
    """Selected jets of a class (or all) on a side."""

    side: str
    name: str
    """Class, or `all`."""
    jets: int
    sum_of_weights: float
    effective: float
    """(Σw)²/Σw²."""
    negative: float
    """Fraction of the jets with a weight below 0."""
    smallest: float
    """Of the weights; NaN without jets, as is the largest."""
    largest: float


class CutCounter:
    """Counts one file's jets, chunk by chunk."""

    def __init__(self, cuts: int, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self.read = self.selected = 0
        self.sum_of_weights = 0.0
        self._alone = np.zeros(cuts, np.int64)
        self._after = np.zeros(cuts, np.int64)
        self._of_class = np.zeros((len(self._classes), cuts + 1), np.int64)

    def add(
        self, passes: Sequence[NDArray[np.bool_]], belongs: Sequence[NDArray[np.bool_]], jets: int
    ) -> None:
        """`passes`: which jets pass each cut by itself; `belongs`: which are of each class."""
        self.read += jets
        kept_J = np.ones(jets, bool)
        for k in range(len(passes) + 1):
            if k:
                kept_J = kept_J & passes[k - 1]
                self._alone[k - 1] += np.count_nonzero(passes[k - 1])
                self._after[k - 1] += np.count_nonzero(kept_J)
            for c, belongs_J in enumerate(belongs):
                self._of_class[c, k] += np.count_nonzero(kept_J & belongs_J)

    def result(self, role: str, sample: str, file: str, entries: int | None, *, complete: bool) -> CutFlow:
        """The file's numbers."""
        return CutFlow(
            role=role,
            sample=sample,
            file=file,
            entries=entries,
            read=self.read,
            alone=tuple(self._alone.tolist()),
            after=tuple(self._after.tolist()),
            of_class={
                name: tuple(row) for name, row in zip(self._classes, self._of_class.tolist(), strict=True)
            }
            if role != "against"
            else {},
            selected=self.selected,
            sum_of_weights=self.sum_of_weights,
            complete=complete,
        )


class YieldCounter:
    """Sums over the selected jets of each class on each side."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._sums: dict[str, Floats] = {}

    def add(self, side: str, labels_J: Integers, weights_J: Floats) -> None:
        """More jets of a side."""
        count = len(self._classes)
        sums = self._sums.setdefault(side, np.tile([0.0, 0.0, 0.0, 0.0, np.inf, -np.inf], (count, 1)))
        powers = (np.ones(len(weights_J)), weights_J, weights_J**2, weights_J < 0)
        for column, values_J in enumerate(powers):
            sums[:, column] += np.bincount(labels_J, values_J, count)
        np.minimum.at(sums[:, 4], labels_J, weights_J)
        np.maximum.at(sums[:, 5], labels_J, weights_J)

    def yields(self) -> tuple[Yield, ...]:
        """All sides, each with all its classes together first; a group without others is not told twice."""
        found, named = [], self._classes if len(self._classes) > 1 else ()
        for side, sums in self._sums.items():
            whole = np.append(sums[:, :4].sum(0), [sums[:, 4].min(), sums[:, 5].max()])
            for name, row in zip(("all", *named), (whole, *sums[: len(named)]), strict=True):
                found.append(_yield(side, name, row))
        return tuple(found)


def _yield(side: str, name: str, row: Floats) -> Yield:
    jets, total, squares, negative, low, high = row.tolist()
    return Yield(
        side=side,
        name=name,
        jets=int(jets),
        sum_of_weights=total,
        effective=total**2 / squares if squares > 0 else 0.0,
        negative=negative / jets if jets else 0.0,
        smallest=low if jets else np.nan,
        largest=high if jets else np.nan,
    )
