"""Parquet, by row group, through pyarrow.

Columns of numbers and lists keep their names; fields of structs, also in lists, are joined by dots. Page checksums
are verified where the file has them.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jettagger.data.containers import base
from jettagger.data.containers.arrow_arrays import leaf_values, leaves_of
from jettagger.data.containers.base import Source
from jettagger.data.containers.fingerprint import fingerprint
from jettagger.data.locations import is_remote, opened_binary
from jettagger.data.locations import size as file_size
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
    width: int
    """Bytes of a number."""
    in_list: bool


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
        # Else pyarrow would hold the columns of a whole row group, as they are stored.
        return parquet.ParquetFile(
            place, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )

    @cached_property
    def _leaves(self) -> Mapping[str, Leaf]:
        fields = self._file.schema_arrow
        leaves = [leaf for field in fields for leaf in leaves_of(field.name, field.type)]
        if len(leaves) != len(self._file.schema):
            raise JettaggerError(f"{self.location}: its columns do not fit its schema")
        found = {".".join(leaf.path): Leaf(number, *leaf) for number, leaf in enumerate(leaves)}
        if len(found) < len(leaves):
            raise JettaggerError(f"{self.location}: a column's name stands twice")
        return found

    @cached_property
    def _size(self) -> int:
        return file_size(self.location)

    @cached_property
    def _starts(self) -> list[int]:
        """First rows of the row groups, and the end."""
        metadata = self._file.metadata
        counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
            raise JettaggerError(f"{self.location}: its row groups do not add up: it is damaged")
        return [0, *np.cumsum(counts).tolist()]

    def _entries(self) -> int:
        return int(self._starts[-1])

    def _branches(self) -> tuple[str, ...]:
        return tuple(self._leaves)

    def _identity(self) -> str:
        return fingerprint(self.location)

    def _bytes(self, branches: Collection[str]) -> float:
        return float(sum(self._group_bytes(branches)))

    def _group_bytes(self, branches: Collection[str]) -> list[float]:
        """Size of some branches in each row group, about.

        The sizes of columns are in the file, but pyarrow ends the process where what stands beside them is
        damaged (SizeStatistics, pyarrow 26): so that of the row group is shared out. Numbers take their width,
        lists the rest.
        """
        found = []
        for group in range(len(self._starts) - 1):
            rows = self._starts[group + 1] - self._starts[group]
            whole = min(max(self._file.metadata.row_group(group).total_byte_size, 0), 100 * self._size)
            numbers = rows * sum(leaf.width for leaf in self._leaves.values() if not leaf.in_list)
            in_lists = sum(leaf.width for leaf in self._leaves.values() if leaf.in_list)
            rest = max(whole - numbers, rows)
            of = [self._leaves[branch] for branch in branches]
            found.append(sum(rest * x.width / in_lists if x.in_list else rows * x.width for x in of))
        return found

    def _ranges(self, branches: Collection[str]) -> list[tuple[int, int]]:
        """Row groups, joined where they are small and cut where they are large."""
        found: list[tuple[int, int]] = []
        filled = 0.0
        for group, size in enumerate(self._group_bytes(branches)):
            first, end = self._starts[group], self._starts[group + 1]
            if found and filled + size <= base.CHUNK_BYTES:
                found[-1] = (found[-1][0], end)
                filled += size
                continue
            pieces = min(max(math.ceil(size / base.CHUNK_BYTES), 1), max(end - first, 1))
            edges = [first + (end - first) * piece // pieces for piece in range(pieces + 1)]
            found += [(left, right) for left, right in pairwise(edges) if left < right]
            filled = size / pieces
        return found or [(0, 0)]

    def _read(self, branches: list[str], start: int, stop: int) -> dict[str, Any]:
        leaves = {branch: self._leaves[branch] for branch in branches}
        columns = tuple(self._file.schema.column(leaf.number).path for leaf in leaves.values())
        batch_rows = max(int(BATCH_BYTES * self.entries / max(self._bytes(branches), 1.0)), 1)
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
        group = int(np.searchsorted(self._starts[1:], start, side="right"))
        last, self._cursor = self._cursor, None
        if last is not None and last.columns == columns and self._starts[group] <= last.row <= start:
            return last
        batches = self._file.iter_batches(
            batch_rows,
            row_groups=range(group, self._file.metadata.num_row_groups),
            columns=list(columns),
            use_threads=False,
        )
        return _Cursor(columns, self._starts[group], batches, None)


def _pyarrow_parquet(location: str) -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise JettaggerError(
            f'{location}: parquet files need pyarrow (pip install "jettagger[parquet]")'
        ) from error
    parquet: ModuleType = pyarrow.parquet
    return parquet
