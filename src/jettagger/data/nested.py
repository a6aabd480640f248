"""Jets nested in events: the branches of the jets, of the event, and of what lies beside the jets.

Everything is done by arithmetic on offsets, for all events of a chunk at once.

Shapes: E events, J jets of all events, N elements of a collection in all events.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError
from jettagger.expressions import Jagged
from jettagger.expressions.jagged import from_branch

Flat = NDArray[Any] | Jagged
"""One number an element, or one list of numbers."""


class Lists(NamedTuple):
    """A list for each event."""

    offsets_E: NDArray[np.int64]
    """Where each event's elements begin, and the end."""
    flat: Flat
    """The elements of all events."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Elements of each event."""
        return np.diff(self.offsets_E)


def opened(name: str, array: Any) -> NDArray[Any] | Lists:
    """One number an event, or a list of numbers (or of lists of numbers) an event."""
    if isinstance(array, Jagged):
        return Lists(np.asarray(array.offsets), from_branch(name, array.values))
    if isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray):
        if array.ndim == 1:
            return from_branch(name, array)  # type: ignore[return-value]
        offsets_E = np.arange(array.shape[0] + 1, dtype=np.int64) * array.shape[1]
        return Lists(offsets_E, from_branch(name, array.reshape(-1, *array.shape[2:])))
    import awkward as ak

    array = ak.Array(array)
    if array.ndim == 1:
        return from_branch(name, array)  # type: ignore[return-value]
    if ak.any(ak.is_none(array, axis=0)):
        raise JettaggerError(f"branch '{name}' has None instead of a list for an event")
    layout = ak.to_packed(ak.drop_none(array, axis=0)).layout
    layout = (layout.to_RegularArray() if layout.is_numpy else layout).to_ListOffsetArray64(True)
    offsets_E = np.asarray(layout.offsets.data, dtype=np.int64)
    return Lists(offsets_E, from_branch(name, ak.Array(layout.content[: offsets_E[-1]])))


def differing(one_E: NDArray[np.int64], other_E: NDArray[np.int64]) -> int | None:
    """The first event whose counts differ, from offsets."""
    if one_E is other_E or np.array_equal(one_E, other_E):
        return None
    return int(np.flatnonzero(np.diff(one_E) != np.diff(other_E))[0])


def gathered(flat: Flat, index: NDArray[np.int64]) -> Flat:
    """Some elements, in the order of `index`."""
    if not isinstance(flat, Jagged):
        return flat[index]
    lengths = flat.counts[index]
    offsets = starts(lengths)
    rows = np.repeat(flat.offsets[:-1][index] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return Jagged(flat.values[rows], offsets)


def starts(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Offsets from counts."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


class Events:
    """The jets of a chunk of events, seen from each of its branches.

    `where` names the file, `first` is the number of the chunk's first event in it.
    """

    def __init__(self, offsets_E: NDArray[np.int64], *, where: str, first: int) -> None:
        self.offsets_E, self.where, self.first = offsets_E, where, first
        self.counts_E = np.diff(offsets_E)
        self.entry_J = np.repeat(np.arange(len(self.counts_E)), self.counts_E)
        self._whole: list[_Whole] = []

    def __len__(self) -> int:
        return len(self.entry_J)

    def of_jets(self, name: str, value: NDArray[Any] | Lists, anchor: str) -> Flat:
        """A branch with one element a jet; `anchor` is the branch that the number of jets was taken from."""
        if not isinstance(value, Lists):
            raise JettaggerError(
                f"{self.where}: data.jets matches '{name}', which has one number an event, not a list with one a jet"
            )
        if (event := differing(value.offsets_E, self.offsets_E)) is not None:
            raise JettaggerError(
                f"{self.where}: event {self.first + event} has {self.counts_E[event]} jets in '{anchor}' and "
                f"{value.counts[event]} in '{name}', and data.jets matches both"
            )
        return value.flat

    def of_event(self, name: str, value: NDArray[Any] | Lists) -> Flat:
        """A branch of the event: a number is repeated for each jet, a list is seen whole by each jet."""
        if not isinstance(value, Lists):
            return value[self.entry_J]
        if isinstance(value.flat, Jagged):
            raise JettaggerError(
                f"{self.where}: '{name}' has lists in the lists of an event and is no branch of the jets: it cannot "
                "be used"
            )
        whole = next((x for x in self._whole if differing(x.before_E, value.offsets_E) is None), None)
        if whole is None:
            lengths_J = value.counts[self.entry_J]
            offsets_J = starts(lengths_J)
            index = np.repeat(value.offsets_E[:-1][self.entry_J] - offsets_J[:-1], lengths_J)
            whole = _Whole(value.offsets_E, index + np.arange(offsets_J[-1]), offsets_J)
            self._whole.append(whole)
        return Jagged(value.flat[whole.rows], whole.offsets_J)


class _Whole(NamedTuple):
    """How each jet sees all elements of its event, for collections that lie as `before_E` says."""

    before_E: NDArray[np.int64]
    rows: NDArray[np.int64]
    offsets_J: NDArray[np.int64]
