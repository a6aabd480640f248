"""The ROOT file: a TTree or an RNTuple named `tree`, unreadable until it is whole."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jettagger.files import written_aside
from jettagger.simulation.selection import JetTable

TREE = "tree"
PROVENANCE = "provenance"
"""Name of a string in the file: JSON with the options, versions and accounts of the simulation."""

FLUSH_JETS = 5000
"""Jets a cluster: baskets of about 1 MB for the particle branches."""

_MAGIC = b"root"


class JetWriter:
    """Collects tables and writes them in clusters of `FLUSH_JETS`, wherever the tables were cut."""

    def __init__(self, file: Any, container: str) -> None:
        self._file, self._container = file, container
        self._waiting: list[JetTable] = []
        self._target: Any = None

    def add(self, table: JetTable) -> None:
        """Takes the next jets."""
        self._waiting.append(table)
        while sum(map(len, self._waiting)) >= FLUSH_JETS:
            merged = _merge(self._waiting)
            self._write(merged.head(FLUSH_JETS))
            self._waiting = [merged.tail(FLUSH_JETS)]

    def finish(self, provenance: dict[str, Any]) -> None:
        """Writes what is left, and where it came from."""
        if self._waiting:
            self._write(_merge(self._waiting))
        self._file[PROVENANCE] = json.dumps(provenance, indent=2, allow_nan=False)

    def _write(self, table: JetTable) -> None:
        import awkward as ak

        particles = {name: ak.unflatten(values, table.counts) for name, values in table.particle.items()}
        if self._container == "ttree":
            # Fields of one record share the counter branch `npart`.
            short = {name.removeprefix("part_"): values for name, values in particles.items()}
            columns: dict[str, Any] = {**table.jet, "part": ak.zip(short)}
        else:
            columns = {**table.jet, **particles}
        if self._target is None:
            make = self._file.mktree if self._container == "ttree" else self._file.mkrntuple
            types = {name: _type(values) for name, values in columns.items()}
            self._target = make(TREE, types)
        self._target.extend(columns)


@contextmanager
def open_writer(path: Path, container: str) -> Iterator[JetWriter]:
    """A writer whose file appears at `path` when the block ends well; a killed one leaves no ROOT file.

    uproot keeps a file readable after each cluster. Its first four bytes are therefore held back to the end.
    """
    import uproot

    with written_aside(path) as aside:
        with _Veiled(aside, "w+b") as veiled, uproot.recreate(veiled, compression=uproot.LZ4(4)) as file:
            yield JetWriter(file, container)
        with aside.open("r+b") as whole:
            whole.write(_MAGIC)


class _Veiled(io.FileIO):
    """A file whose ROOT signature is written as zeros."""

    def write(self, data: Any) -> int:
        if self.tell() == 0 and bytes(data[:4]) == _MAGIC:
            data = bytes(4) + bytes(data[4:])
        return super().write(data)


def _type(values: Any) -> Any:
    import awkward as ak

    return values.dtype if isinstance(values, np.ndarray) else ak.type(values).content


def _merge(tables: list[JetTable]) -> JetTable:
    return JetTable(
        {name: np.concatenate([table.jet[name] for table in tables]) for name in tables[0].jet},
        {name: np.concatenate([table.particle[name] for table in tables]) for name in tables[0].particle},
        np.concatenate([table.counts for table in tables]),
    )
