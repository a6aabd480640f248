"""Tables that pandas wrote into HDF5 (`DataFrame.to_hdf`, format fixed or table), read without pandas.

Columns keep their names. They lie in blocks of one type, so that 800 of them cost one read.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any, NoReturn

import h5py
import numpy as np

from jettagger.data.containers.array_parts import Part
from jettagger.errors import JettaggerError

PANDAS_TYPE = "pandas_type"
"""Attribute of the groups that hold a table."""


def frame_parts(
    location: str, key: str, group: h5py.Group, arrays: Mapping[str, h5py.Dataset]
) -> dict[str, Part]:
    """The branches of the table in `group`, whose datasets are `arrays`."""
    kind = _text(group.attrs[PANDAS_TYPE])
    if kind == "frame":
        found = _fixed(location, key, group, arrays)
    elif kind == "frame_table":
        found = _table(location, key, arrays)
    else:
        raise JettaggerError(f"{location}: '{key}' is a pandas {kind}: only a DataFrame is read")
    if not found:
        raise JettaggerError(f"{location}: the pandas table '{key}' has no column of numbers")
    return found


def _columns(whole: Part, names: list[str]) -> dict[str, Part]:
    """Each column of a block."""
    return {name: whole._replace(column=number) for number, name in enumerate(names)}


def _fixed(location: str, key: str, group: h5py.Group, arrays: Mapping[str, h5py.Dataset]) -> dict[str, Part]:
    """Datasets block0_values (rows × columns) with their names in block0_items."""
    if (variety := _text(group.attrs.get("axis0_variety", "regular"))) != "regular":
        raise JettaggerError(
            f"{location}: '{key}' has columns of the kind '{variety}', only plain names are read"
        )
    found: dict[str, Part] = {}
    for number in range(int(group.attrs["nblocks"])):
        values, items = f"{key}/block{number}_values", f"{key}/block{number}_items"
        # pandas pickles columns of text: those are not read.
        if values in arrays and arrays[values].ndim == 2 and items in arrays:
            names = [_branch(item) for item in np.ravel(arrays[items][()])]
            _check(location, key, names, arrays[values].shape[1])
            found |= _columns(Part(values), names)
    return found


def _table(location: str, key: str, arrays: Mapping[str, h5py.Dataset]) -> dict[str, Part]:
    """One compound dataset with blocks of columns, whose names are in pickled attributes."""
    table = arrays.get(f"{key}/table")
    if table is None or not table.dtype.names:
        raise JettaggerError(f"{location}: the pandas table '{key}' is damaged: it has no rows")
    found: dict[str, Part] = {}
    for field in table.dtype.names:
        if field == "index" or (pickled := table.attrs.get(f"{field}_kind")) is None:
            continue
        names = [_branch(name) for name in _unpickled(pickled, f"{location}: '{key}' {field}")]
        whole, inner = Part(f"{key}/table", (field,)), table.dtype[field]
        _check(location, key, names, inner.shape[-1] if inner.shape else 1)
        found |= _columns(whole, names) if inner.shape else {names[0]: whole}
    return found


def _check(location: str, key: str, names: list[str], columns: int) -> None:
    if len(names) != columns:
        raise JettaggerError(
            f"{location}: the pandas table '{key}' has {len(names)} names for {columns} columns"
        )


class _PlainUnpickler(pickle.Unpickler):
    """Lists and texts need no class; whatever else a pickle asks for could run code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object from elsewhere")


def _unpickled(pickled: Any, where: str) -> list[Any]:
    """A list of names, from a pickle that may hold nothing but lists, numbers and texts."""
    content = str(pickled).encode() if isinstance(pickled, str) else np.asarray(pickled).tobytes()
    try:
        names = _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise JettaggerError(
            f"{where}: the column names are a pickle that is damaged or not safe to read ({error})"
        ) from error
    if not isinstance(names, list):
        raise JettaggerError(f"{where}: the column names are a {type(names).__name__}, not a list")
    return names


def _branch(name: Any) -> str:
    """Numbers as names get a letter, since expressions begin no name with a digit."""
    return _text(name) if isinstance(name, str | bytes) else f"c{name}"


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
