"""ROOT files, opened with care: TTree and RNTuple through uproot, in bounded chunks.

Whatever is wrong with a file ends in a JettaggerError that names it; nothing is skipped.
"""

import glob
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import uproot

from jettagger.errors import JettaggerError, nearest, unknown_name

CHUNK_BYTES = 64 * 2**20
"""Uncompressed size that a chunk of entries may have, about."""


class Chunk(NamedTuple):
    """Entries [start, stop) of a file."""

    start: int
    stop: int
    branches: Mapping[str, Any]
    """Awkward arrays, one a branch, all with stop - start entries."""


def find_files(patterns: str | list[str], *, where: str) -> list[Path]:
    """The files that paths and globs stand for: sorted within a glob, each once.

    `where` names the config's key in the error for a pattern that matches nothing.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = Path(pattern).expanduser()
        # A file that is there is no pattern, whatever brackets its name holds.
        matches = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise _no_match(pattern, where)
        found.update((Path(match), None) for match in matches)
    if not found:
        raise JettaggerError(f"{where}: the list of files is empty")
    return list(found)


def _no_match(pattern: str, where: str) -> JettaggerError:
    folder = Path(pattern).expanduser().parent
    if not folder.is_dir():
        if glob.has_magic(str(folder)):
            return JettaggerError(f"{where}: no file matches '{pattern}'")
        return JettaggerError(f"{where}: no file matches '{pattern}': there is no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    close = nearest(Path(pattern).name.replace("*", ""), names)
    hint = f" (did you mean {folder / close}?)" if close else f" ({len(names)} files in {folder})"
    kind = "no file matches" if glob.has_magic(pattern) else "no such file:"
    return JettaggerError(f"{where}: {kind} '{pattern}'{hint}")


@dataclass(frozen=True)
class Source:
    """One ROOT file and the tree in it that holds the jets."""

    path: Path
    tree: str | None = None
    """Name of the TTree or RNTuple; None: the only one."""

    @cached_property
    def _tree(self) -> Any:
        with _readable(self.path):
            if not self.path.exists():
                raise JettaggerError(f"no such file: {self.path}")
            if self.path.is_dir():
                raise JettaggerError(f"{self.path} is a folder, not a ROOT file")
            if self.path.stat().st_size == 0:
                raise JettaggerError(f"{self.path} is empty (0 bytes)")
            _check_header(self.path)
            # Each entry is read once: uproot's cache of arrays would only take memory.
            file = uproot.open(self.path, array_cache=None)
            names = _trees(file)
            if not names:
                raise JettaggerError(f"{self.path} holds no TTree or RNTuple: it is empty or damaged")
            if self.tree is not None:
                if self.tree not in names:
                    raise unknown_name("tree", self.tree, names, where=self.path)
                return file[self.tree]
            if len(names) != 1:
                found = ", ".join(names)
                raise JettaggerError(f"{self.path}: name one of its trees with data.tree (found: {found})")
            return file[names[0]]

    @cached_property
    def entries(self) -> int:
        """Number of jets."""
        return int(self._tree.num_entries)

    @cached_property
    def branches(self) -> tuple[str, ...]:
        """Names that expressions may use."""
        with _readable(self.path):
            return tuple(self._tree.keys())

    @cached_property
    def identity(self) -> str:
        """Size and UUID: changes with the content, not with the name or the date."""
        return f"{self.path.stat().st_size}:{self._tree.file.uuid}:{self._tree.name}"

    def ranges(self, branches: Collection[str]) -> list[tuple[int, int]]:
        """Entry ranges of about CHUNK_BYTES each; they depend on the file and the branches alone."""
        self._check(branches)
        with _readable(self.path):
            per_entry = self._bytes(branches) / max(self.entries, 1)
        step = max(int(CHUNK_BYTES / max(per_entry, 1.0)), 1)
        pieces = max(-(-self.entries // step), 1)
        edges = [self.entries * piece // pieces for piece in range(pieces + 1)]
        return list(pairwise(edges))

    def read(self, branches: Collection[str], start: int, stop: int) -> Chunk:
        """The branches of entries [start, stop)."""
        self._check(branches)
        with _readable(self.path):
            arrays = self._tree.arrays(sorted(branches), entry_start=start, entry_stop=stop, how=dict)
        short = {name: len(array) for name, array in arrays.items() if len(array) != stop - start}
        if short:
            raise JettaggerError(f"{self.path}: {stop - start} entries were asked for, read were {short}")
        return Chunk(start, stop, arrays)

    def chunks(self, branches: Collection[str]) -> Iterator[Chunk]:
        """All entries, chunk by chunk."""
        for start, stop in self.ranges(branches):
            yield self.read(branches, start, stop)

    def _check(self, branches: Collection[str]) -> None:
        for name in sorted(branches):
            if name not in self.branches:
                raise unknown_name("branch", name, self.branches, where=self.path)

    def _bytes(self, branches: Collection[str]) -> float:
        if isinstance(self._tree, uproot.TTree):
            return float(sum(self._tree[name].uncompressed_bytes for name in branches))
        # An RNTuple's pages do not tell a field's size cheaply: share out the file's, as if packed 2:1.
        return 2.0 * self.path.stat().st_size * len(branches) / max(len(self.branches), 1)


def opened(path: Path, tree: str | None) -> Source:
    """The source; the last few stay open for the next step that looks at them, unless the file changes."""
    if not path.exists():
        raise JettaggerError(f"no such file: {path}")
    status = path.stat()
    return _opened(path, tree, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=16)
def _opened(path: Path, tree: str | None, *_status: int) -> Source:
    return Source(path, tree)


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


def _trees(file: Any) -> list[str]:
    kinds = file.classnames(cycle=False)
    return sorted(name for name, kind in kinds.items() if kind in ("TTree", "TNtuple", "ROOT::RNTuple"))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what uproot raises on a damaged file into one readable error."""
    try:
        yield
    except JettaggerError:
        raise
    except MemoryError as error:
        raise JettaggerError(f"cannot read {path}: out of memory, or a damaged length in the file") from error
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        AssertionError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
        RecursionError,
        EOFError,
        struct.error,
        zlib.error,
    ) as error:
        reason = str(error).strip().splitlines()
        said = f": {reason[0]}" if reason else ""
        raise JettaggerError(
            f"cannot read {path}: the file is truncated or damaged ({type(error).__name__}{said})"
        ) from error
