"""TTrees: their branches as columns, and what is checked of their baskets.

A basket's content is protected by the checksum of its compression (zlib, LZMA; LZ4's is ROOT's own), which uproot
verifies; zstd writes none, nor has content that did not shrink and was stored as it is. The key before a basket
and the tree's own lists never have one: they are compared with each other, so that a damaged length is found
before memory is asked for.
"""

import re
import struct
from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from jettagger.errors import JettaggerError

_KEY = struct.Struct(">ihiIhh")
"""fNbytes, fVersion, fObjlen, fDatime, fKeylen, fCycle of a basket's key."""
_SIZES = struct.Struct(">iii")
"""fNevBufSize, fNevBuf, fLast, which end a basket's key, before a flag of one byte."""
_BLOCK_HEADER = 9
"""Bytes before each compressed block: two letters, the method, and two lengths of three bytes."""
_REFERENCE = np.uint32(0xFFFFFF)
"""Bits of a TObject's number; ROOT keeps the number of the process in the byte above."""


class Column(NamedTuple):
    """What a name stands for."""

    branch: Any
    """uproot's TBranch."""
    path: str
    """Way to the branch from the tree, by which uproot reads it."""
    fields: tuple[str, ...]
    """Way to a member of the objects in the branch; empty for all of it."""


class Tree:
    """A TTree of a file."""

    def __init__(self, tree: Any, location: str) -> None:
        self._tree = tree
        self._location = location

    @property
    def entries(self) -> int:
        """Number of entries."""
        return int(self._tree.num_entries)

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Branches that hold data, by name; not those of split objects, whose parts are branches below.

        A name is the branch's own (`Jet.PT` for Jet/Jet.PT), without the lengths of its axes (`Jet.Tau` for
        Jet.Tau[5]), or the way to it where two have one name; members of objects follow behind a dot
        (Jet.SoftDroppedP4.fE).
        """
        leaves = [(path, branch) for path, branch in self._tree.iteritems() if not branch.branches]
        short = [_short(branch.name) for _, branch in leaves]
        often = {name for name in short if short.count(name) > 1} if len(set(short)) < len(short) else set()
        found: dict[str, Column] = {}
        for (path, branch), name in zip(leaves, short, strict=True):
            name = _short(path).replace("/", ".") if name in often else name
            ways = _members(branch)
            found.update((f"{name}.{'.'.join(way)}", Column(branch, path, way)) for way in ways)
            if not ways:
                found[name] = Column(branch, path, ())
        return found

    def forms(self, names: Collection[str]) -> dict[str, Any]:
        """Awkward's form of an entry of each column, as the tree describes it."""
        found = {}
        for name in names:
            column = self.columns[name]
            form = column.branch.interpretation.awkward_form(column.branch.file)
            found[name] = _way_down(form, (*column.fields, "refs", "ref"))
        return found

    def size(self, names: Collection[str]) -> float:
        """Uncompressed bytes of some columns."""
        return float(sum(self.columns[name].branch.uncompressed_bytes for name in names))

    def edges(self, names: Collection[str]) -> NDArray[np.int64]:
        """Entries at which a basket begins in each of the columns."""
        common: set[int] | None = None
        for name in names:
            branch = self.columns[name].branch
            if branch.num_baskets:
                own = set(branch.entry_offsets)
                common = own if common is None else common & own
        return np.array(sorted(common or ()), np.int64)

    def read(self, names: Collection[str], start: int, stop: int) -> dict[str, Any]:
        """The columns of entries [start, stop)."""
        columns = {name: self.columns[name] for name in names}
        for name, column in columns.items():
            self._check_entries(name, column.branch)
        baskets = _Baskets(self._location)
        try:
            arrays = self._tree.arrays(
                sorted({column.path for column in columns.values()}),
                entry_start=start,
                entry_stop=stop,
                decompression_executor=baskets,
                how=dict,
            )
        except Exception:
            baskets.find_the_damaged_one()
            raise
        return {name: _plain(arrays[column.path], column, name) for name, column in columns.items()}

    def _check_entries(self, name: str, branch: Any) -> None:
        if branch.num_entries != self.entries:
            raise JettaggerError(
                f"{self._location}: branch '{name}' has {branch.num_entries} entries, its tree "
                f"'{self._tree.name}' {self.entries}"
            )
        if branch.num_baskets and np.any(np.diff(branch.entry_offsets) < 0):
            raise JettaggerError(f"{self._location}: branch '{name}': the list of its baskets is damaged")


class _Baskets:
    """The baskets of one reading: each one's key is looked at before uproot decompresses it."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._seen: list[tuple[Any, int]] = []

    def submit(self, task: Callable[..., object], /, chunk: Any, branch: Any, basket: int) -> None:
        """uproot's call for each basket; `task` keeps to itself what it reads and what it raises."""
        self._seen.append((branch, basket))
        first, stop = branch.basket_entry_start_stop(basket)
        if (trouble := basket_trouble(np.asarray(chunk.raw_data), int(stop - first))) is not None:
            raise self._damaged(branch, basket, trouble)
        task(chunk, branch, basket)

    def find_the_damaged_one(self) -> None:
        """Raises JettaggerError that names the basket, if one of them cannot be read alone either."""
        for branch, basket in self._seen:
            first, stop = branch.basket_entry_start_stop(basket)
            try:
                branch.array(entry_start=first, entry_stop=stop, array_cache=None)
            except Exception as error:
                raise self._damaged(branch, basket, str(error).splitlines()[0]) from error

    def _damaged(self, branch: Any, basket: int, trouble: str) -> JettaggerError:
        first, stop = branch.basket_entry_start_stop(basket)
        return JettaggerError(
            f"cannot read {self._location}: basket {basket} of branch '{_short(branch.name)}' "
            f"(entries {first} to {stop - 1}) is damaged: {trouble}"
        )


def basket_trouble(content: NDArray[np.uint8], entries: int) -> str | None:
    """What is wrong with the lengths in a basket (key and compressed blocks); None where they fit together."""
    if len(content) < _KEY.size:
        return f"it has {len(content)} bytes"
    stored, _, length, _, key_length, _ = _KEY.unpack(content[: _KEY.size].tobytes())
    if stored != len(content) or not _KEY.size + _SIZES.size < key_length <= stored or length < 0:
        return f"its key says {stored} bytes, {key_length} of them for the key; it has {len(content)}"
    _, in_basket, border = _SIZES.unpack(content[key_length - _SIZES.size - 1 : key_length - 1].tobytes())
    if in_basket != entries:
        return f"its key says {in_basket} entries, its branch {entries}"
    if not key_length <= border <= key_length + length:
        return f"its key says that the data end at {border} of {key_length + length} bytes"
    if length != stored - key_length and (blocks := _blocks(content, key_length)) != length:
        return f"its key says {length} uncompressed bytes, its blocks {blocks}"
    return None


def _blocks(content: NDArray[np.uint8], at: int) -> int:
    """Uncompressed bytes of all compressed blocks from `at` on; -1 where they do not fill what is there."""
    total = 0
    while at + _BLOCK_HEADER <= len(content):
        c1, c2, c3, u1, u2, u3 = (int(x) for x in content[at + 3 : at + _BLOCK_HEADER])
        total += u1 | u2 << 8 | u3 << 16
        at += _BLOCK_HEADER + (c1 | c2 << 8 | c3 << 16)
    return total if at == len(content) else -1


def _short(name: str) -> str:
    return re.sub(r"(\[[^\]]*\])+$", "", name).rstrip(".")


def _members(branch: Any) -> list[tuple[str, ...]]:
    """Ways to the numbers in a branch of structs (TLorentzVector: fE, fP.fX, …)."""
    if branch.classname == "TBranch":
        return []  # numbers only; and what a branch of NanoAOD means takes uproot a while to find out
    interpretation = branch.interpretation
    inner = getattr(interpretation, "content", interpretation)
    if not isinstance(inner, uproot.interpretation.objects.AsStridedObjects):
        return []
    return list(_ways(interpretation.awkward_form(branch.file)))


def _ways(form: Any, way: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    while not form.is_record and hasattr(form, "content"):
        form = form.content
    if not form.is_record:
        return [way] if way else []
    return [
        deeper
        for field in form.fields
        if not field.startswith("@")
        for deeper in _ways(form.content(field), (*way, field))
    ]


def _way_down(form: Any, fields: tuple[str, ...]) -> Any:
    """The form without the records in it: for each the first of `fields` that it has."""
    if form.is_record:
        step = next((field for field in fields if field in form.fields), None)
        return form if step is None else _way_down(form.content(step), fields)
    if not hasattr(form, "content") or form.parameter("__array__") == "string":
        return form
    return form.copy(content=_way_down(form.content, fields))


def _plain(array: Any, column: Column, name: str) -> Any:
    """Without objects where there is a plain meaning: the numbers of a TRefArray's or TRef's objects."""
    for field in column.fields:
        array = array[field]
    fields = ak.fields(array)
    if "refs" in fields or fields == ["ref"]:
        array = ak.values_astype(array["refs" if "refs" in fields else "ref"], np.uint32)
        return array & _REFERENCE
    if name.endswith("fUniqueID"):
        return array & _REFERENCE
    return array
