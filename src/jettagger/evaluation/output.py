"""Per-jet scores as ROOT, HDF5 or parquet: whole or absent, read back before they get their name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError, nearest
from jettagger.files import written_aside

Columns = Mapping[str, NDArray[Any]]
TREE = "tree"
"""Name of the TTree."""
SUFFIXES = (".root", ".h5", ".hdf5", ".parquet")
_ROWS_AT_ONCE = 1 << 20


def write_scores(path: Path | str, columns: Columns, attributes: Mapping[str, Any] | None = None) -> None:
    """Writes one row a jet; the format goes by the suffix.

    `.root`: TTree `tree`, attributes as JSON in the string `attributes`. `.h5`, `.hdf5`: one dataset a
    column, attributes on the file. `.parquet`: attributes as JSON in the schema's metadata (needs pyarrow).
    Columns are flat arrays of numbers or bools, of equal length, which may be 0. The number of rows and the
    last row are compared with what the file holds before it takes its name.
    """
    path = Path(path)
    arrays = {name: np.ascontiguousarray(column) for name, column in columns.items()}
    _check(arrays)
    check_suffix(path)
    writers = {".root": _root, ".parquet": _parquet}
    with written_aside(path) as aside:
        last = writers.get(path.suffix, _hdf5)(aside, arrays, dict(attributes or {}))
        _compare(path, arrays, last)


def check_suffix(path: Path) -> None:
    """Raises JettaggerError for a file whose suffix names no format."""
    if path.suffix not in SUFFIXES:
        close = nearest(path.suffix, SUFFIXES)
        suggestion = f": did you mean '{close}'?" if close else ""
        allowed = ", ".join(SUFFIXES)
        raise JettaggerError(f"{path}: unknown suffix '{path.suffix}'{suggestion} (allowed: {allowed})")


def _check(arrays: Columns) -> None:
    if not arrays:
        raise ValueError("no columns to write")
    lengths = {name: len(column) for name, column in arrays.items() if column.ndim == 1}
    if len(lengths) != len(arrays) or len(set(lengths.values())) != 1:
        shapes = {name: column.shape for name, column in arrays.items()}
        raise ValueError(f"columns must be flat and of equal length, not {shapes}")
    for name, column in arrays.items():
        if column.dtype.kind not in "biuf":
            raise ValueError(f"column '{name}' holds {column.dtype}, not numbers")


def _root(path: Path, arrays: Columns, attributes: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    import uproot

    rows = _rows(arrays)
    with uproot.recreate(path, compression=uproot.ZSTD(5)) as file:
        tree = file.mktree(TREE, {name: column.dtype for name, column in arrays.items()})
        for start in range(0, rows, _ROWS_AT_ONCE):
            tree.extend({name: column[start : start + _ROWS_AT_ONCE] for name, column in arrays.items()})
        file["attributes"] = json.dumps(attributes)
    with uproot.open(path) as file:
        tree = file[TREE]
        count = int(tree.num_entries)
        end = tree.arrays(list(arrays), entry_start=max(count - 1, 0), library="np") if count else {}
    return count, {name: column[-1] for name, column in end.items()}


def _hdf5(path: Path, arrays: Columns, attributes: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    import h5py

    with h5py.File(path, "w") as file:
        for name, column in arrays.items():
            packed = {"compression": "gzip", "compression_opts": 4} if len(column) else {}
            file.create_dataset(name, data=column, **packed)
        for key, value in attributes.items():
            file.attrs[key] = value if isinstance(value, str | int | float | bool) else json.dumps(value)
    with h5py.File(path, "r") as file:
        counts = {len(file[name]) for name in arrays}
        count = counts.pop() if len(counts) == 1 else -1
        return count, {name: file[name][-1] for name in arrays} if count > 0 else {}


def _parquet(path: Path, arrays: Columns, attributes: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise JettaggerError('parquet output needs pyarrow: pip install "jettagger[parquet]"') from error
    table = pyarrow.table({name: pyarrow.array(column) for name, column in arrays.items()})
    table = table.replace_schema_metadata({"attributes": json.dumps(attributes)})
    pyarrow.parquet.write_table(table, path, compression="zstd")
    with pyarrow.parquet.ParquetFile(path) as file:
        count = int(file.metadata.num_rows)
        if count == 0:
            return 0, {}
        end = file.read_row_group(file.num_row_groups - 1)
        return count, {name: end[name][-1].as_py() for name in arrays}


def _compare(path: Path, arrays: Columns, written: tuple[int, dict[str, Any]]) -> None:
    count, last = written
    rows = _rows(arrays)
    if count != rows:
        raise JettaggerError(f"{path}: {rows} rows were to be written, {count} are in the file")
    for name, value in last.items():
        if not np.array_equal(arrays[name][-1], value, equal_nan=arrays[name].dtype.kind == "f"):
            raise JettaggerError(f"{path}: the last row of '{name}' reads {value}, not {arrays[name][-1]}")


def _rows(arrays: Columns) -> int:
    return len(next(iter(arrays.values())))
