"""Scores as ROOT, HDF5 or parquet, written block by block: whole or absent, read back before they get their name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jettagger.errors import JettaggerError, nearest
from jettagger.evaluation.score_files import Block, Columns, End, Hdf5File, ParquetFile, RootFile, ScoreFile
from jettagger.files import written_aside

CONTAINERS: dict[str, type[ScoreFile]] = {
    ".root": RootFile,
    ".h5": Hdf5File,
    ".hdf5": Hdf5File,
    ".parquet": ParquetFile,
}
ROWS_AT_ONCE = 1 << 17
"""Rows that are written together: small blocks would make small baskets and row groups."""


def write_scores(path: Path | str, columns: Columns, attributes: Mapping[str, Any] | None = None) -> None:
    """Writes columns of equal length, which may be 0, as one row an entry: see `scores_written`."""
    with scores_written(path, attributes) as writer:
        writer.add(Block(columns))


@contextmanager
def scores_written(path: Path | str, attributes: Mapping[str, Any] | None = None) -> Iterator["ScoreWriter"]:
    """Takes blocks of scores and writes them to `path`; the format goes by the suffix.

    `.root`: TTree `tree`, attributes as JSON in the string `attributes`. `.h5`, `.hdf5`: one dataset a
    column, attributes on the file. `.parquet`: attributes as JSON in the schema's metadata (needs pyarrow).
    Columns are flat arrays of numbers or bools. Jets nested in events are lists with the counter `n_jets` in
    ROOT and parquet, one row an event; HDF5 has one row a jet, with `jet_index`. The number of rows and the last
    row are compared with what the file holds before it takes its name. Memory is that of a few blocks.
    """
    path = Path(path)
    check_suffix(path)
    with written_aside(path) as aside:
        file = CONTAINERS[path.suffix](aside, dict(attributes or {}))
        try:
            writer = ScoreWriter(file)
            yield writer
            writer.finish(path)
        finally:
            file.close()


def check_suffix(path: Path) -> None:
    """Raises JettaggerError for a file whose suffix names no format."""
    if path.suffix not in CONTAINERS:
        close = nearest(path.suffix, CONTAINERS)
        suggestion = f": did you mean '{close}'?" if close else ""
        allowed = ", ".join(CONTAINERS)
        raise JettaggerError(f"{path}: unknown suffix '{path.suffix}'{suggestion} (allowed: {allowed})")


class ScoreWriter:
    """Collects blocks until they are worth a write, and remembers what the end of the file has to be."""

    def __init__(self, file: ScoreFile) -> None:
        self._file = file
        self._waiting: list[Block] = []
        self._last: Block | None = None
        """The last row."""
        self._last_jets: Block | None = None
        """The last row that has jets."""
        self._begun = False
        self.rows = 0
        """Rows added so far: jets, or events with jets."""
        self.jets = 0

    def add(self, block: Block) -> None:
        """Some rows more. All blocks have the same columns."""
        _check(block, self._last or (self._waiting[0] if self._waiting else None))
        self.rows += len(block)
        self.jets += block.number_of_jets
        if len(block):
            self._last = block.part(len(block) - 1, len(block))
        if block.number_of_jets:
            row = len(block) - 1 if block.counts_E is None else int(np.flatnonzero(block.counts_E)[-1])
            self._last_jets = block.part(row, row + 1)
        for start in range(0, max(len(block), 1), ROWS_AT_ONCE):
            self._waiting.append(block.part(start, min(start + ROWS_AT_ONCE, len(block))))
            if sum(part.number_of_jets for part in self._waiting) >= ROWS_AT_ONCE:
                self._write()

    def finish(self, path: Path) -> None:
        """Writes the rest, ends the file and compares its end."""
        if self._waiting or not self._begun:
            self._write()
        self._file.finish()
        rows = self._file.rows(self.rows, self.jets)
        _compare(path, rows, self.jets, self._file.expected(self._last, self._last_jets), self._file.end())

    def _write(self) -> None:
        if not self._waiting:
            raise ValueError("no columns to write")
        block = _joined(self._waiting)
        if not self._begun:
            self._file.begin(block)
            self._begun = True
        if len(block):
            self._file.write(block)
        self._waiting = []


def _joined(blocks: Sequence[Block]) -> Block:
    def columns(parts: Sequence[Columns]) -> Columns:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    counts = [block.counts_E for block in blocks if block.counts_E is not None]
    return Block(
        columns([block.columns for block in blocks]),
        columns([block.jets for block in blocks]),
        np.concatenate(counts) if counts else None,
    )


def _check(block: Block, last: Block | None) -> None:
    arrays = {**block.columns, **block.jets}
    if not arrays:
        raise ValueError("no columns to write")
    for of, length in ((block.columns, len(block)), (block.jets, block.number_of_jets)):
        if any(column.shape != (length,) for column in of.values()):
            shapes = {name: column.shape for name, column in arrays.items()}
            raise ValueError(f"columns must be flat and of equal length, not {shapes}")
    for name, column in arrays.items():
        if column.dtype.kind not in "biuf":
            raise ValueError(f"column '{name}' holds {column.dtype}, not numbers")
    if last is not None and {**last.columns, **last.jets}.keys() != arrays.keys():
        raise ValueError(f"columns {list(arrays)} follow other columns")


def _compare(path: Path, rows: int, jets: int, expected: Columns, found: End) -> None:
    if found.rows != rows:
        raise JettaggerError(f"{path}: {rows} rows were to be written, {found.rows} are in the file")
    if found.jets is not None and found.jets != jets:
        raise JettaggerError(f"{path}: {jets} jets were to be written, {found.jets} are in the file")
    for name, value in expected.items():
        read = np.asarray(found.last[name]).reshape(-1)
        if not np.array_equal(value, read, equal_nan=value.dtype.kind == "f"):
            raise JettaggerError(
                f"{path}: the last row of '{name}' reads {_shown(read)}, not {_shown(value)}"
            )


def _shown(values: Any) -> Any:
    return values[0] if len(values) == 1 else values.tolist()
