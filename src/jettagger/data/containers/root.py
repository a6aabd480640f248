"""ROOT files: TTree and RNTuple, through uproot."""

import struct
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import uproot

from jettagger.data.containers.base import Source
from jettagger.data.locations import is_remote
from jettagger.errors import JettaggerError, unknown_name


class RootSource(Source):
    """One ROOT file and the tree in it that holds the jets or events."""

    @cached_property
    def _tree(self) -> Any:
        if not is_remote(self.location):
            _check_header(Path(self.location))
        # Each entry is read once: uproot's cache of arrays would only take memory.
        # A mapping or a Path, since uproot splits texts at a colon.
        place = {self.location: None} if is_remote(self.location) else Path(self.location)
        file = uproot.open(place, array_cache=None)
        names = _trees(file)
        if not names:
            raise JettaggerError(f"{self.location} holds no TTree or RNTuple: it is empty or damaged")
        tree = self.opening.tree
        if tree is not None:
            if tree not in names:
                raise unknown_name("tree", tree, names, where=self.location)
            return file[tree]
        if len(names) != 1:
            found = ", ".join(names)
            raise JettaggerError(f"{self.location}: name one of its trees with data.tree (found: {found})")
        return file[names[0]]

    def _entries(self) -> int:
        return int(self._tree.num_entries)

    def _branches(self) -> tuple[str, ...]:
        return tuple(self._tree.keys())

    def _identity(self) -> str:
        """Size and UUID: both stand in the header, so that a file is known without reading its directory."""
        return f"{Path(self.location).stat().st_size}:{_uuid(Path(self.location))}"

    def _bytes(self, branches: Collection[str]) -> float:
        if isinstance(self._tree, uproot.TTree):
            return float(sum(self._tree[name].uncompressed_bytes for name in branches))
        # An RNTuple's pages do not tell a field's size cheaply: share out the file's, as if packed 2:1.
        return 2.0 * Path(self.location).stat().st_size * len(branches) / max(len(self.branches), 1)

    def _read(self, branches: list[str], start: int, stop: int) -> dict[str, Any]:
        arrays: dict[str, Any] = self._tree.arrays(branches, entry_start=start, entry_stop=stop, how=dict)
        return arrays


def _check_header(path: Path) -> None:
    """A ROOT file says how long it is; uproot opens one that was cut short and finds it empty."""
    with path.open("rb") as stream:
        header = stream.read(20)
    if header[:4] != b"root":
        raise JettaggerError(f"{path} is no ROOT file: it does not begin with 'root'")
    (version,) = struct.unpack(">i", header[4:8])
    # From version 1000000 on, lengths are 64-bit (ROOT's TFile format).
    (length,) = (
        struct.unpack(">q", header[12:20]) if version >= 1_000_000 else struct.unpack(">i", header[12:16])
    )
    if (size := path.stat().st_size) < length:
        raise JettaggerError(f"{path} is truncated: its header says {length} bytes, the file has {size}")


def _uuid(path: Path) -> UUID:
    """The UUID in a file's header, behind a two-byte version; where it lies depends on the width of lengths."""
    _check_header(path)
    with path.open("rb") as stream:
        header = stream.read(80)
    (version,) = struct.unpack(">i", header[4:8])
    at = 59 if version >= 1_000_000 else 47
    return UUID(bytes=header[at : at + 16])


def _trees(file: Any) -> list[str]:
    kinds = file.classnames(cycle=False)
    return sorted(name for name, kind in kinds.items() if kind in ("TTree", "TNtuple", "ROOT::RNTuple"))
