"""Parquet, by row group, through pyarrow.

Columns of numbers and lists keep their names; fields of structs, also in lists, are joined by dots. Page checksums
are verified where the file has them.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jettagger.data.containers import base
from jettagger.data.containers.arrow_arrays import leaf_paths, leaf_values
from jettagger.data.containers.base import Source
from jettagger.data.containers.fingerprint import fingerprint
from jettagger.data.locations import is_remote, opened_binary
from jettagger.errors import JettaggerError

BUFFER_BYTES = 2**20
BATCH_BYTES = 2**23
"""Uncompressed size that is decoded at a time where a row group is cut."""


class Leaf(NamedTuple):
    """A column as parquet stores it: it has neither fields nor lists of its own."""

    number: int
    """In the file."""
    path: tuple[str, ...]
    """Names of the column and of the structs' fields."""


class _Cursor(NamedTuple):
    """Where the last read stopped, in a row group that is read in pieces."""

    columns: tuple[str, ...]
    row: int
    batches: Iterator[Any]
    rest: Any
    """Rows that were decoded and not asked for yet."""


class ParquetSource(Source):
    """One parquet file."""

    _cursor: _Cursor | None = None

    @cached_property
    def _file(self) -> Any:
        parquet = _pyarrow_parquet(self.location)
        place: Any = self.location
        if is_remote(self.location):
            self._stack = ExitStack()
            place = self._stack.enter_context(opened_binary(self.location))
        with _arrow_errors():
            # Else pyarrow would hold the columns of a whole row group, as they are stored.
            return parquet.ParquetFile(
                place, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
            )

    @cached_property
    def _leaves(self) -> Mapping[str, Leaf]:
        with _arrow_errors():
            fields = self._file.schema_arrow
            paths = [(field.name, *path) for field in fields for path in leaf_paths(field.type)]
        if len(paths) != len(self._file.schema):
            raise JettaggerError(f"{self.location}: its columns do not fit its schema")
        found = {".".join(path): Leaf(number, path) for number, path in enumerate(paths)}
        if len(found) < len(paths):
            raise JettaggerError(f"{self.location}: a column's name stands twice")
        return found

    @cached_property
    def _edges(self) -> list[int]:
        """First rows of the row groups, and the end."""
        metadata = self._file.metadata
        counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
            raise JettaggerError(f"{self.location}: its row groups do not add up: it is damaged")
        return [0, *np.cumsum(counts).tolist()]

    def _entries(self) -> int:
        return int(self._edges[-1])

    def _branches(self) -> tuple[str, ...]:
        return tuple(self._leaves)

    def _identity(self) -> str:
        return fingerprint(self.location)

    def _bytes(self, branches: Collection[str]) -> float:
        return float(sum(self._group_bytes(branches)))

    def _group_bytes(self, branches: Collection[str]) -> list[int]:
        numbers = [self._leaves[branch].number for branch in branches]
        metadata = self._file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        return [sum(group.column(number).total_uncompressed_size for number in numbers) for group in groups]

    def _ranges(self, branches: Collection[str]) -> list[tuple[int, int]]:
        """Row groups, joined where they are small and cut where they are large."""
        found: list[tuple[int, int]] = []
        filled = 0.0
        for group, size in enumerate(self._group_bytes(branches)):
            first, end = self._edges[group], self._edges[group + 1]
            if found and filled + size <= base.CHUNK_BYTES:
                found[-1] = (found[-1][0], end)
                filled += size
                continue
            pieces = min(max(-(-size // base.CHUNK_BYTES), 1), max(end - first, 1))
            edges = [first + (end - first) * piece // pieces for piece in range(pieces + 1)]
            found += [(left, right) for left, right in pairwise(edges) if left < right]
            filled = size / pieces
        return found or [(0, 0)]

    def _read(self, branches: list[str], start: int, stop: int) -> dict[str, Any]:
        leaves = {branch: self._leaves[branch] for branch in branches}
        columns = tuple(self._file.schema.column(leaf.number).path for leaf in leaves.values())
        batch_rows = max(int(BATCH_BYTES * self.entries / max(self._bytes(branches), 1.0)), 1)
        with _arrow_errors():
            table = self._table(columns, start, stop, batch_rows)
            return {branch: leaf_values(table, leaf.path) for branch, leaf in leaves.items()}

    def _table(self, columns: tuple[str, ...], start: int, stop: int, batch_rows: int) -> Any:
        """Rows [start, stop), with no more of a row group in memory than these and one batch."""
        import pyarrow as pa

        cursor = self._at(columns, start, batch_rows)
        rest, row = cursor.rest, cursor.row
        pieces = []
        while row < stop:
            if rest is None or rest.num_rows == 0:
                batch = next(cursor.batches, None)
                if batch is None:
                    raise EOFError(f"it ends {stop - row} rows early")
                rest = pa.Table.from_batches([batch])
                continue
            skipped = min(max(start - row, 0), rest.num_rows)
            taken = rest.slice(skipped, stop - row - skipped)
            if taken.num_rows:
                pieces.append(taken)
            row, rest = row + skipped + taken.num_rows, rest.slice(skipped + taken.num_rows)
        self._cursor = _Cursor(columns, row, cursor.batches, rest)
        if not pieces:
            return self._file.read_row_groups([], columns=list(columns))
        return pa.concat_tables(pieces).combine_chunks()

    def _at(self, columns: tuple[str, ...], start: int, batch_rows: int) -> _Cursor:
        """Goes on where the last read of these columns stopped, if that is in the row group of `start`."""
        group = int(np.searchsorted(self._edges[1:], start, side="right"))
        last, self._cursor = self._cursor, None
        if last is not None and last.columns == columns and self._edges[group] <= last.row <= start:
            return last
        batches = self._file.iter_batches(
            batch_rows,
            row_groups=range(group, self._file.metadata.num_row_groups),
            columns=list(columns),
            use_threads=False,
        )
        return _Cursor(columns, self._edges[group], batches, None)


def _pyarrow_parquet(location: str) -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise JettaggerError(
            f'{location}: parquet files need pyarrow (pip install "jettagger[parquet]")'
        ) from error
    parquet: ModuleType = pyarrow.parquet
    return parquet


@contextmanager
def _arrow_errors() -> Iterator[None]:
    """`readable` does not know those of Arrow's errors that are no errors of Python's."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        if isinstance(error, ValueError | OSError | MemoryError | NotImplementedError):
            raise
        raise ValueError(str(error)) from error
