"""ROOT files: TTree and RNTuple, through uproot."""

import struct
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from jettagger.data import locations
from jettagger.data.containers import rntuple, ttree
from jettagger.data.containers.base import Source
from jettagger.errors import JettaggerError, unknown_name

_KINDS = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")
_USUAL = ("Events", "tree", "CollectionTree", "EventData", "Delphes")
"""Trees that hold the jets or events where a file has others beside them (Runs, LuminosityBlocks, MetaData, …)."""


class RootSource(Source):
    """One ROOT file and the tree in it that holds the jets or events."""

    @cached_property
    def _file(self) -> Any:
        with locations.reachable(self.location):
            _header(self.location)
            # Each entry is read once: uproot's cache of arrays would only take memory.
            # A mapping or a Path, since uproot splits texts at a colon.
            remote = locations.is_remote(self.location)
            place = {self.location: None} if remote else Path(self.location)
            return uproot.open(place, array_cache=None, **locations.options(self.location))

    @cached_property
    def _tree(self) -> "ttree.Tree | rntuple.RNTuple":
        found = self._file[self._name]
        if isinstance(found, uproot.TTree):
            return ttree.Tree(found, self.location)
        return rntuple.RNTuple(found, self.location)

    @cached_property
    def _name(self) -> str:
        """The tree that is asked for, or the only one. Of several cycles of a tree uproot opens the last."""
        kinds: dict[str, str] = self._file.classnames(cycle=False)
        names = sorted(name for name, kind in kinds.items() if kind in _KINDS)
        if not names:
            raise JettaggerError(f"{self.location} holds no TTree or RNTuple: it is empty or damaged")
        tree = self.opening.tree
        if tree is not None:
            if tree not in names:
                raise unknown_name("tree", tree, names, where=self.location)
            return tree
        if len(names) != 1:
            found = ", ".join(names)
            hint = next((f", for example data.tree: {usual}" for usual in _USUAL if usual in names), "")
            raise JettaggerError(
                f"{self.location}: name one of its trees with data.tree (found: {found}){hint}"
            )
        return names[0]

    def _entries(self) -> int:
        return self._tree.entries

    def _branches(self) -> tuple[str, ...]:
        return tuple(self._tree.columns)

    def _identity(self) -> str:
        """Size and UUID: both stand in the header, so that a file is known without reading its directory."""
        header = _header(self.location)
        return f"{locations.size(self.location)}:{header.uuid}"

    def _bytes(self, branches: Collection[str]) -> float:
        return self._tree.size(branches)

    def _types(self, branches: Collection[str]) -> dict[str, Any]:
        return {name: form.type for name, form in self._tree.forms(branches).items()}

    def _edges(self, branches: Collection[str]) -> NDArray[np.int64]:
        return self._tree.edges(branches)

    def _read(self, branches: list[str], start: int, stop: int) -> dict[str, Any]:
        arrays = self._tree.read(branches, start, stop)
        for name, array in arrays.items():
            if (trouble := unsound(ak.to_layout(array))) is not None:
                raise JettaggerError(f"cannot read {self.location}: branch '{name}' is damaged: {trouble}")
        return arrays


def unsound(layout: Any) -> str | None:
    """What is wrong with the lists of an array; None where each lies within its content.

    Without a checksum a damaged file gives lists that awkward would follow out of the array.
    """
    if layout.is_record:
        return next((said for part in layout.contents if (said := unsound(part)) is not None), None)
    if layout.is_list and hasattr(layout, "offsets"):
        offsets = np.asarray(layout.offsets)
        if offsets[0] < 0 or np.any(offsets[1:] < offsets[:-1]):
            return "a list in it has less than no elements"
        if offsets[-1] > len(layout.content):
            return f"its lists need {offsets[-1]} elements, it has {len(layout.content)}"
    return unsound(layout.content) if hasattr(layout, "content") else None


class _Header(NamedTuple):
    """What is needed of the beginning of a ROOT file."""

    length: int
    uuid: UUID


def _header(location: str) -> _Header:
    """Raises JettaggerError for what is no ROOT file, and for one that is shorter than it says.

    uproot opens a file that was cut short and finds it empty.
    """
    content = locations.beginning(location, 80)
    if content[:4] != b"root":
        raise JettaggerError(f"{location} is no ROOT file: it does not begin with 'root'")
    size = locations.size(location)
    if len(content) < 80:
        raise JettaggerError(f"{location} is truncated: it has {size} bytes")
    (version,) = struct.unpack(">i", content[4:8])
    # From version 1000000 on, lengths are 64-bit (ROOT's TFile format); the UUID follows a version of two bytes.
    big = version >= 1_000_000
    (length,) = struct.unpack(">q", content[12:20]) if big else struct.unpack(">i", content[12:16])
    if size < length:
        raise JettaggerError(f"{location} is truncated: its header says {length} bytes, the file has {size}")
    at = 59 if big else 47
    return _Header(length, UUID(bytes=content[at : at + 16]))
