"""The files that scores are written to: ROOT, HDF5 and parquet, each block by block."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.errors import JettaggerError

Columns = Mapping[str, NDArray[Any]]
TREE = "tree"
"""Name of the TTree."""
COUNTER = "n_jets"
"""Name of the branch or column with the number of jets of an event."""
INDEX = "jet_index"
_HDF5_CHUNK = 1 << 14


class Block(NamedTuple):
    """Some rows, and the jets in them where a row is an event."""

    columns: Columns
    """One number a row."""
    jets: Columns = {}
    """One number a jet."""
    counts_E: NDArray[np.int64] | None = None
    """Jets of each row; None where a row is a jet."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def number_of_jets(self) -> int:
        """All jets."""
        return len(self) if self.counts_E is None else int(self.counts_E.sum())

    def part(self, start: int, stop: int) -> "Block":
        """Rows [start, stop)."""
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        if self.counts_E is None:
            return Block(columns)
        first, behind = (int(self.counts_E[:row].sum()) for row in (start, stop))
        jets = {name: column[first:behind] for name, column in self.jets.items()}
        return Block(columns, jets, self.counts_E[start:stop])

    def flat(self) -> Columns:
        """One row a jet: what belongs to the event is repeated, the number of the jet in it is added."""
        if self.counts_E is None:
            return self.columns
        first_J = np.repeat(np.cumsum(self.counts_E) - self.counts_E, self.counts_E)
        columns = {name: np.repeat(column, self.counts_E) for name, column in self.columns.items()}
        return {**columns, INDEX: np.arange(len(first_J)) - first_J, **self.jets}


class End(NamedTuple):
    """What was read back."""

    rows: int
    last: Mapping[str, Any]
    """Each column of the last row: a number, or a list of numbers."""
    jets: int | None = None
    """Sum of the counter, where there is one."""


class ScoreFile(ABC):
    """A file that is being written."""

    def __init__(self, path: Path, attributes: Mapping[str, Any]) -> None:
        self.path, self.attributes = path, attributes
        self._file: Any = None
        """What is open, and has to be closed."""

    @abstractmethod
    def begin(self, block: Block) -> None:
        """Opens the file for columns like those of `block`, and writes none of it."""

    @abstractmethod
    def write(self, block: Block) -> None:
        """Adds rows."""

    @abstractmethod
    def finish(self) -> None:
        """Writes the attributes and closes the file."""

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @abstractmethod
    def end(self) -> End:
        """Reads back how many rows there are, and the last one."""

    def rows(self, rows: int, jets: int) -> int:
        """How many rows the file should have."""
        return rows

    def expected(self, last: Block | None, last_jets: Block | None) -> Columns:
        """What `end` should find of the last row, given the last one and the last that has jets."""
        return {} if last is None else {**last.columns, **last.jets}


class RootFile(ScoreFile):
    """A TTree with one entry a row; jets in events are jagged branches that share a counter."""

    def begin(self, block: Block) -> None:
        import uproot

        self._file = uproot.recreate(self.path, compression=uproot.ZSTD(5))
        types: dict[str, Any] = {name: column.dtype for name, column in block.columns.items()}
        if block.counts_E is not None:
            types["jets"] = _lists(block).type
        self._tree = self._file.mktree(
            TREE,
            types,
            counter_name=lambda counted: COUNTER,
            field_name=lambda outer, inner: inner if inner else outer,
        )

    def write(self, block: Block) -> None:
        jets = {} if block.counts_E is None else {"jets": _lists(block)}
        self._tree.extend({**block.columns, **jets})

    def finish(self) -> None:
        self._file["attributes"] = json.dumps(self.attributes)
        self.close()

    def end(self) -> End:
        import uproot

        with uproot.open(self.path) as file:
            tree = file[TREE]
            rows = int(tree.num_entries)
            if not rows:
                return End(0, {})
            last = tree.arrays(entry_start=rows - 1, how=dict)
            jets = None
            if COUNTER in last:
                jets = sum(int(part[COUNTER].sum()) for part in tree.iterate([COUNTER], library="np"))
            return End(rows, {name: column[0] for name, column in last.items()}, jets)


class Hdf5File(ScoreFile):
    """One dataset a column and one row a jet."""

    def begin(self, block: Block) -> None:
        import h5py

        self._file = h5py.File(self.path, "w")
        for name, column in block.flat().items():
            self._file.create_dataset(
                name,
                shape=(0,),
                maxshape=(None,),
                dtype=column.dtype,
                chunks=(_HDF5_CHUNK,),
                compression="gzip",
                compression_opts=4,
            )

    def write(self, block: Block) -> None:
        for name, column in block.flat().items():
            dataset = self._file[name]
            done = len(dataset)
            dataset.resize((done + len(column),))
            dataset[done:] = column

    def finish(self) -> None:
        for key, value in self.attributes.items():
            self._file.attrs[key] = (
                value if isinstance(value, str | int | float | bool) else json.dumps(value)
            )
        self.close()

    def end(self) -> End:
        import h5py

        with h5py.File(self.path, "r") as file:
            counts = {len(file[name]) for name in file}
            rows = counts.pop() if len(counts) == 1 else -1
            return End(rows, {name: file[name][-1] for name in file} if rows > 0 else {})

    def rows(self, rows: int, jets: int) -> int:
        return jets

    def expected(self, last: Block | None, last_jets: Block | None) -> Columns:
        return {} if last_jets is None else {name: column[-1:] for name, column in last_jets.flat().items()}


class ParquetFile(ScoreFile):
    """One row a row; jets in events are lists."""

    def begin(self, block: Block) -> None:
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise JettaggerError('parquet output needs pyarrow: pip install "jettagger[parquet]"') from error
        schema = self._table(block.part(0, 0)).schema
        schema = schema.with_metadata({"attributes": json.dumps(self.attributes)})
        self._file = pyarrow.parquet.ParquetWriter(self.path, schema, compression="zstd")
        self._schema = schema

    def write(self, block: Block) -> None:
        self._file.write_table(self._table(block).cast(self._schema))

    def finish(self) -> None:
        self.close()

    def end(self) -> End:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            rows = int(file.metadata.num_rows)
            if not rows:
                return End(0, {})
            table = file.read_row_group(file.num_row_groups - 1)
            jets = None
            if COUNTER in table.column_names:
                groups = range(file.num_row_groups)
                parts = (file.read_row_group(group, columns=[COUNTER])[COUNTER] for group in groups)
                jets = sum(int(part.to_numpy().sum()) for part in parts)
            return End(rows, {name: table[name][-1].as_py() for name in table.column_names}, jets)

    def _table(self, block: Block) -> Any:
        import pyarrow

        columns = {name: pyarrow.array(column) for name, column in block.columns.items()}
        if block.counts_E is not None:
            columns[COUNTER] = pyarrow.array(block.counts_E.astype(np.int32))
            offsets = pyarrow.array(np.concatenate([[0], np.cumsum(block.counts_E)]).astype(np.int32))
            for name, column in block.jets.items():
                columns[name] = pyarrow.ListArray.from_arrays(offsets, pyarrow.array(column))
        return pyarrow.table(columns)


def _lists(block: Block) -> Any:
    import awkward as ak

    return ak.unflatten(ak.zip(dict(block.jets)), block.counts_E)
