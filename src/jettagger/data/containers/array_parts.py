"""The branches that one array gives: an HDF5 dataset, or a member of a NumPy archive.

- Fields of a compound become `array.field`; compounds in compounds become `array.field.field`.
- The last axis of `{X: [pt, y, phi, pid]}` in `data.columns` is named: `X.pt`, …; without names the last of
  three axes gives `X.c0`, `X.c1`, …; a second axis without names is the list of particles.
- A compound with a slot axis and a field `valid` gives lists of the slots that are valid.

Shapes: N entries, P slots, F features.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError, unknown_name

VALID = "valid"
"""Field of a compound that marks the slots that are filled (ATLAS)."""


class Part(NamedTuple):
    """One branch of an array."""

    array: str
    """The array's name in the file."""
    fields: tuple[str, ...] = ()
    """From the outermost compound inwards."""
    column: int | None = None
    """Number in the last axis; None: all of it."""
    masked: bool = False
    """Slots that are not `valid` are left out."""


class Columns:
    """The names of `data.columns`, for the arrays of one file."""

    def __init__(self, names: Iterable[tuple[str, tuple[str, ...]]], where: str) -> None:
        self._names = dict(names)
        self._where = where
        self._seen: set[str] = set()

    def check_used(self) -> None:
        """Raises JettaggerError for a name that is none of the arrays that were asked for."""
        for name in self._names:
            if name not in self._seen:
                raise unknown_name("array", name, self._seen, where=f"{self._where}: data.columns")

    def of(self, branch: str, shape: tuple[int, ...]) -> tuple[str, ...] | None:
        """Names for the last axis of an array; None where it stays whole."""
        self._seen.add(branch)
        names = self._names.get(branch)
        if names is None:
            return tuple(f"c{number}" for number in range(shape[-1])) if len(shape) == 3 else None
        if len(shape) < 2:
            raise JettaggerError(
                f"{self._where}: data.columns.{branch}: '{branch}' has one value an entry and no axis to name"
            )
        if len(names) != shape[-1]:
            raise JettaggerError(
                f"{self._where}: data.columns.{branch}: {len(names)} names ({', '.join(names)}) for the last axis "
                f"of '{branch}', which has length {shape[-1]}"
            )
        if len(set(names)) < len(names):
            raise JettaggerError(f"{self._where}: data.columns.{branch}: a name stands twice: {list(names)}")
        return names


def common_length(lengths: Mapping[str, int], where: str) -> int:
    """The length that most arrays have: entries. Those of other lengths (metadata) are no branches."""
    by_length: dict[int, list[str]] = {}
    for name, length in lengths.items():
        by_length.setdefault(length, []).append(name)
    if not by_length:
        raise JettaggerError(f"{where} holds no array with rows")
    most = max(len(names) for names in by_length.values())
    likely = [length for length, names in by_length.items() if len(names) == most]
    if len(likely) > 1:
        listed = "; ".join(f"{length}: {_some(names)}" for length, names in sorted(by_length.items()))
        raise JettaggerError(
            f"{where}: its arrays have different lengths ({listed}): name the group or array with the jets by "
            "data.tree (where each class has an array of its own, make a file of each)"
        )
    return likely[0]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def parts(
    array: str, dtype: np.dtype[Any], shape: tuple[int, ...], columns: Columns, *, branch: str | None = None
) -> dict[str, Part]:
    """The branches of an array; `branch` is what their names begin with, default: the array's name."""
    name = array if branch is None else branch
    found = dict(_parts(name, Part(array), dtype, shape, columns))
    if dtype.names and VALID in dtype.names and len(shape) == 2 and dtype[VALID].kind in "biu":
        mark = f"{name}.{VALID}" if name else VALID
        found = {k: part._replace(masked=True) for k, part in found.items() if k != mark}
        found[mark] = Part(array, (VALID,), masked=True)
    return found


def _parts(
    name: str, whole: Part, dtype: np.dtype[Any], shape: tuple[int, ...], columns: Columns
) -> Iterable[tuple[str, Part]]:
    if dtype.subdtype is not None:
        dtype, inner = dtype.subdtype
        shape = (*shape, *inner)
    if dtype.names:
        for field in dtype.names:
            inside = whole._replace(fields=(*whole.fields, field))
            yield from _parts(f"{name}.{field}" if name else field, inside, dtype[field], shape, columns)
    elif (names := columns.of(name, shape)) is not None:
        for number, column in enumerate(names):
            yield f"{name}.{column}", whole._replace(column=number)
    else:
        yield name, whole


def take(stored: NDArray[Any], wanted: Mapping[str, Part]) -> dict[str, Any]:
    """Branches of some entries of an array: NumPy arrays, or awkward lists of the valid slots."""
    found: dict[str, Any] = {}
    for branch, part in wanted.items():
        if not part.masked:
            found[branch] = _of(stored, part)
    masked = {branch: part for branch, part in wanted.items() if part.masked}
    return found | _valid_slots(stored, masked) if masked else found


def _of(stored: NDArray[Any], part: Part) -> NDArray[Any]:
    values: NDArray[Any] = stored
    for field in part.fields:
        values = values[field]
    if part.column is not None:
        values = values[..., part.column]
    return as_bool(values) if values.dtype == bool else values


def _valid_slots(stored_NP: NDArray[Any], masked: Mapping[str, Part]) -> dict[str, Any]:
    import awkward as ak

    valid_NP = as_bool(stored_NP[VALID])
    offsets = np.zeros(len(valid_NP) + 1, np.int64)
    np.cumsum(np.count_nonzero(valid_NP, axis=1), out=offsets[1:])
    # Whole slots first: they lie together, the numbers of one field do not. `take` is ten times as fast as [].
    slots = np.take(stored_NP.reshape(-1), np.flatnonzero(valid_NP))
    return {
        branch: ak.Array(
            ak.contents.ListOffsetArray(
                ak.index.Index64(offsets), ak.to_layout(np.ascontiguousarray(_of(slots, part)))
            )
        )
        for branch, part in masked.items()
    }


def as_bool(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Bytes that a damaged file passes off as bool count as True; NumPy would add them up."""
    stored = values.view(np.uint8) if values.dtype == bool else values
    return np.asarray(stored != 0)


def by_array(wanted: Mapping[str, Part]) -> dict[str, dict[str, Part]]:
    """Parts by branch, for each array."""
    found: dict[str, dict[str, Part]] = {}
    for branch, part in wanted.items():
        found.setdefault(part.array, {})[branch] = part
    return found


def needed_fields(wanted: Iterable[Part]) -> list[str]:
    """Outermost fields to be read of a compound; none where it is no compound."""
    fields: dict[str, None] = {}
    for part in wanted:
        if part.fields:
            fields[part.fields[0]] = None
        if part.masked:
            fields[VALID] = None
    return list(fields)


def row_bytes(dtype: np.dtype[Any], shape: tuple[int, ...], fields: Iterable[str]) -> float:
    """Size of one entry of an array, with these fields of it (all where there are none)."""
    fields = list(fields)
    size = sum(dtype[field].itemsize for field in fields) if fields else dtype.itemsize
    return float(size * np.prod(shape[1:], dtype=np.float64))
