"""What every container offers: a number of entries, named branches, and any range of them as arrays.

An entry is a jet, or an event with jets (`data.jets`): `Layout` makes jets of both. Whatever is wrong with a
file ends in a JettaggerError that names it; nothing is skipped.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from jettagger.data.locations import unreachable
from jettagger.errors import JettaggerError, unknown_name

CHUNK_BYTES = 64 * 2**20
"""Uncompressed size that a chunk of entries may have, about."""
MOST_CHUNKS = 3
"""How many times that it may have, where a smaller chunk would decompress the same content again."""


class Chunk(NamedTuple):
    """Entries [start, stop) of a file."""

    start: int
    stop: int
    branches: Mapping[str, Any]
    """Arrays, one a branch, all with stop - start entries: NumPy arrays of one or more axes, or awkward arrays."""


class Opening(NamedTuple):
    """What the config says of how files are read; hashable."""

    tree: str | None = None
    """Name of the TTree or RNTuple, or key of the table (pandas); None: the only one."""
    columns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names for the last axis of arrays that have none: see `data.columns`."""


class Source(ABC):
    """One file. Subclasses implement the methods that begin with `_`; these may raise anything."""

    def __init__(self, location: str, opening: Opening = Opening()) -> None:  # noqa: B008 - it is immutable
        """`location`: a path or URL. Nothing is opened before it is asked for."""
        self.location = location
        self.opening = opening

    @cached_property
    def entries(self) -> int:
        """Number of entries."""
        with readable(self.location):
            return self._entries()

    @cached_property
    def branches(self) -> tuple[str, ...]:
        """Names as they are stored."""
        with readable(self.location):
            return self._branches()

    @cached_property
    def identity(self) -> str:
        """Changes with the content, not with the name or the date."""
        with readable(self.location):
            return self._identity()

    def kinds(self, branches: Collection[str]) -> dict[str, str]:
        """What an entry of each branch holds: a number, a list of numbers, a list of lists of numbers, text, …

        Files whose kinds differ cannot be read as one sample: see `same_kinds`.
        """
        self._check(branches)
        with readable(self.location):
            return {name: kind(found) for name, found in self._types(branches).items()}

    def ranges(self, branches: Collection[str]) -> list[tuple[int, int]]:
        """Entry ranges of about CHUNK_BYTES each; they depend on the file and the branches alone."""
        self._check(branches)
        with readable(self.location):
            return self._ranges(branches)

    def read(self, branches: Collection[str], start: int, stop: int) -> Chunk:
        """The branches of entries [start, stop)."""
        self._check(branches)
        with readable(self.location):
            arrays = self._read(sorted(branches), start, stop)
        short = {name: len(array) for name, array in arrays.items() if len(array) != stop - start}
        if short:
            raise JettaggerError(f"{self.location}: {stop - start} entries were asked for, read were {short}")
        return Chunk(start, stop, arrays)

    def chunks(self, branches: Collection[str]) -> Iterator[Chunk]:
        """All entries, chunk by chunk."""
        for start, stop in self.ranges(branches):
            yield self.read(branches, start, stop)

    def _check(self, branches: Collection[str]) -> None:
        known = frozenset(self.branches)
        for name in sorted(branches):
            if name not in known:
                raise unknown_name("branch", name, self.branches, where=self.location)

    def _ranges(self, branches: Collection[str]) -> list[tuple[int, int]]:
        per_entry = self._bytes(branches) / max(self.entries, 1)
        step = max(int(CHUNK_BYTES / max(per_entry, 1.0)), 1)
        pieces = max(-(-self.entries // step), 1)
        edges = [self.entries * piece // pieces for piece in range(pieces + 1)]
        return list(pairwise(moved(edges, self._edges(branches))))

    def _edges(self, branches: Collection[str]) -> NDArray[np.int64]:
        """Entries, in order, at which a chunk can end without decompressing anything twice; may be empty."""
        return np.empty(0, np.int64)

    def _types(self, branches: Collection[str]) -> Mapping[str, Any]:
        """Of each branch awkward's type of one entry; without reading any, where the container can tell."""
        arrays = self._read(sorted(branches), 0, 0)
        return {name: ak.type(ak.Array(array)).content for name, array in arrays.items()}

    @abstractmethod
    def _entries(self) -> int: ...

    @abstractmethod
    def _branches(self) -> tuple[str, ...]: ...

    @abstractmethod
    def _identity(self) -> str: ...

    @abstractmethod
    def _bytes(self, branches: Collection[str]) -> float:
        """Uncompressed size of some branches, all entries."""

    @abstractmethod
    def _read(self, branches: list[str], start: int, stop: int) -> dict[str, Any]: ...


_MANY = {
    "a number": "numbers",
    "text": "texts",
    "a record": "records",
    "nothing": "nothing",
    "a list of numbers": "lists of numbers",
}


def kind(found: Any) -> str:
    """In words, for awkward's type of one entry; the width of numbers does not matter, nor that of lists."""
    if found.parameters.get("__array__") in ("string", "bytestring"):
        return "text"
    if hasattr(found, "primitive"):
        return "a number"
    if hasattr(found, "fields"):
        return "a record"
    if not hasattr(found, "content"):
        return "nothing"
    return (
        f"a list of {_MANY[kind(found.content)]}"
        if kind(found.content) in _MANY
        else "lists in lists in lists"
    )


def same_kinds(seen: dict[str, tuple[str, str]], source: Source, branches: Collection[str]) -> None:
    """Notes the kinds of a file's branches in `seen` (branch -> kind, file).

    Raises JettaggerError for one of another kind than in a file before: numbers and lists of them would be combined
    without an error, only in another way.
    """
    for name, found in source.kinds(branches).items():
        before, where = seen.setdefault(name, (found, source.location))
        if before != found:
            raise JettaggerError(
                f"{source.location}: branch '{name}' holds {found} an entry, in {where} {before}"
            )


def moved(edges: list[int], offered: NDArray[np.int64]) -> list[int]:
    """Edges of chunks, each moved to the nearest one that is offered, where that is less than half a chunk away.

    Where the offered ones lie further apart, but not further than MOST_CHUNKS, an edge between them is left out.
    """
    inner = np.array(edges[1:-1], np.int64)
    if not len(inner) or not len(offered):
        return edges
    known = np.union1d(offered, [edges[0], edges[-1]])
    at = np.searchsorted(known, inner, side="right")
    below, above = known[at - 1], known[at]
    near = np.where(inner - below <= above - inner, below, above)
    step = min(np.diff(edges))
    close = np.abs(near - inner) < step / 2
    kept = np.where(close, near, inner)[close | (above - below > MOST_CHUNKS * step)]
    return sorted({edges[0], edges[-1], *kept.tolist()})


@contextmanager
def readable(location: str) -> Iterator[None]:
    """Turns what a library raises on a damaged or unreachable file into one readable error."""
    try:
        yield
    except JettaggerError:
        raise
    except MemoryError as error:
        raise JettaggerError(
            f"cannot read {location}: out of memory, or a damaged length in the file"
        ) from error
    except Exception as error:
        # Libraries raise their own kinds (cramjam, lzma, uproot, h5py, …), so that no list of kinds is whole.
        if (trouble := unreachable(location, error)) is not None:
            raise trouble from error
        reason = str(error).strip().splitlines()
        said = f": {reason[0]}" if reason else ""
        raise JettaggerError(
            f"cannot read {location}: the file is truncated or damaged ({type(error).__name__}{said})"
        ) from error
