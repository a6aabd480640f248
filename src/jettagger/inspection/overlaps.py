"""Jets that stand twice, and jets that lie on two sides of the training, by their fingerprints.

Shapes: J jets.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.inspection.fingerprints import Hashes, with_event


class Marks(NamedTuple):
    """What identifies the selected jets of a sample on one side: 16 bytes a jet."""

    side: str
    """`train`, `validation` or `test`."""
    sample: str
    hashes_J: Hashes
    group_J: NDArray[np.int64]
    """Event numbers, where the files have them."""


class Repeats(NamedTuple):
    """Equal jets within one side."""

    side: str
    jets: int
    repeated: int
    """Jets that are equal to an earlier one: all inputs and spectators agree."""
    same_event: int | None
    """Those of them that have its event number as well; None without event numbers."""
    between_samples: int
    """Jets that several samples hold: each counted once."""


class Leak(NamedTuple):
    """Jets that two sides share."""

    first: str
    second: str
    jets: int
    """Jets of `second` that are equal to one of `first`."""
    same_event: int | None
    """Those that agree in their event number as well; None without event numbers."""
    events: int | None
    """Event numbers on both sides: no fault by itself, since each production counts from the start."""


class Overlaps(NamedTuple):
    """Everything that stands twice."""

    repeats: tuple[Repeats, ...]
    leaks: tuple[Leak, ...]


def overlaps(marks: Sequence[Marks], *, has_events: bool) -> Overlaps:
    """Compares all samples and sides; needs memory for the numbers of two sides."""
    sides = list(dict.fromkeys(mark.side for mark in marks))
    of_side = {side: [mark for mark in marks if mark.side == side] for side in sides}
    repeats = tuple(_repeats(side, of_side[side], has_events) for side in sides)
    leaks = tuple(_leak(a, of_side[a], b, of_side[b], has_events) for a, b in combinations(sides, 2))
    return Overlaps(repeats, leaks)


def _hashes(marks: Sequence[Marks]) -> Hashes:
    return np.concatenate([mark.hashes_J for mark in marks])


def _groups(marks: Sequence[Marks]) -> NDArray[np.int64]:
    return np.concatenate([mark.group_J for mark in marks])


def _repeats(side: str, marks: Sequence[Marks], has_events: bool) -> Repeats:
    hashes_J = _hashes(marks)
    different = len(np.unique(hashes_J))
    same_event = len(hashes_J) - len(np.unique(with_event(hashes_J, _groups(marks)))) if has_events else None
    by_sample: dict[str, list[Hashes]] = {}
    for mark in marks:
        by_sample.setdefault(mark.sample, []).append(mark.hashes_J)
    within = sum(len(np.unique(np.concatenate(parts))) for parts in by_sample.values())
    return Repeats(side, len(hashes_J), len(hashes_J) - different, same_event, within - different)


def _leak(a: str, first: Sequence[Marks], b: str, second: Sequence[Marks], has_events: bool) -> Leak:
    mine, its = _hashes(first), _hashes(second)
    jets = int(np.isin(its, mine).sum())
    if not has_events:
        return Leak(a, b, jets, None, None)
    my_groups, its_groups = _groups(first), _groups(second)
    same = int(np.isin(with_event(its, its_groups), with_event(mine, my_groups)).sum())
    return Leak(a, b, jets, same, len(np.intersect1d(my_groups, its_groups)))
