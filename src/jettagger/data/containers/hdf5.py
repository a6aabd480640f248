"""HDF5: compound datasets (ATLAS), plain arrays (JetNet) and pandas tables, through h5py."""

import importlib
import math
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import Any, NamedTuple

import h5py
import numpy as np
import xxhash

from jettagger.data.containers import base
from jettagger.data.containers.array_parts import (
    Columns,
    Part,
    by_array,
    common_length,
    needed_fields,
    parts,
    row_bytes,
    take,
)
from jettagger.data.containers.base import Source
from jettagger.data.containers.fingerprint import BLOCKS, all_counts, fingerprint
from jettagger.data.containers.pandas_table import PANDAS_TYPE, frame_parts
from jettagger.data.locations import is_remote, opened_binary, size
from jettagger.errors import JettaggerError, unknown_name

SAMPLED = 16
"""Rows of each block of a dataset that its identity looks at."""


class Contents(NamedTuple):
    """What a file offers."""

    entries: int
    arrays: Mapping[str, h5py.Dataset]
    parts: Mapping[str, Part]
    """By branch."""


class Hdf5Source(Source):
    """One HDF5 file, and the datasets in it that have one row a jet or event."""

    @cached_property
    def _file(self) -> h5py.File:
        # Many network file systems know no locks; other settings would clash with the user's own h5py.File.
        if not is_remote(self.location):
            return h5py.File(self.location, "r", locking="best-effort")
        self._stack = ExitStack()
        return h5py.File(self._stack.enter_context(opened_binary(self.location)), "r")

    @cached_property
    def _contents(self) -> Contents:
        groups, arrays = _objects(self._file)
        frames = [name for name, group in groups.items() if PANDAS_TYPE in group.attrs]
        if frames:
            contents = self._frame(frames, arrays)
        else:
            contents = self._arrays(groups, arrays)
        for array in {part.array for part in contents.parts.values()}:
            self._check_storage(array, contents.arrays[array])
        return contents

    def _frame(self, frames: list[str], arrays: Mapping[str, h5py.Dataset]) -> Contents:
        """The pandas table that `data.tree` names, or the only one."""
        tree = (self.opening.tree or "").strip("/")
        if tree and tree not in frames:
            raise unknown_name("table", tree, frames, where=self.location)
        if not tree and len(frames) > 1:
            raise JettaggerError(
                f"{self.location}: name one of its tables with data.tree (found: {', '.join(sorted(frames))})"
            )
        key = tree or frames[0]
        inside = {name: array for name, array in arrays.items() if name.startswith(f"{key}/")}
        for name, array in inside.items():
            self._check_filters(name, array)
        found = frame_parts(self.location, key, self._file[key], inside)
        lengths = {len(arrays[part.array]) for part in found.values()}
        if len(lengths) != 1:
            raise JettaggerError(
                f"{self.location}: the table '{key}' has blocks of {sorted(lengths)} rows: it is damaged"
            )
        return Contents(lengths.pop(), arrays, found)

    def _arrays(self, groups: Mapping[str, h5py.Group], arrays: Mapping[str, h5py.Dataset]) -> Contents:
        """The datasets of one length, below the group or dataset that `data.tree` names if it does."""
        arrays = {name: array for name, array in arrays.items() if array.shape}
        prefix = ""
        if self.opening.tree is not None:
            tree = self.opening.tree.strip("/")
            if tree in arrays:
                # A compound's fields are then named without it; a plain array has no other name.
                branch = "" if arrays[tree].dtype.names else tree.rpartition("/")[2]
                return self._of_length(len(arrays[tree]), {tree: arrays[tree]}, {tree: branch})
            if tree not in groups:
                raise unknown_name("group or dataset", tree, [*groups, *arrays], where=self.location)
            prefix = f"{tree}/"
        branches = {
            name: name.removeprefix(prefix).replace("/", ".") for name in arrays if name.startswith(prefix)
        }
        entries = common_length({name: len(arrays[name]) for name in branches}, self.location)
        of_length = {name: arrays[name] for name in branches if len(arrays[name]) == entries}
        return self._of_length(entries, of_length, branches)

    def _of_length(
        self, entries: int, arrays: Mapping[str, h5py.Dataset], branches: Mapping[str, str]
    ) -> Contents:
        columns = Columns(self.opening.columns, self.location)
        found: dict[str, Part] = {}
        for name, array in arrays.items():
            found |= parts(name, array.dtype, array.shape, columns, branch=branches[name])
        columns.check_used()
        return Contents(entries, arrays, found)

    def _check_storage(self, name: str, array: h5py.Dataset) -> None:
        """What HDF5 would fill with zeros, or look for in other files, is refused."""
        properties = array.id.get_create_plist()
        if array.is_virtual or properties.get_external_count():
            raise JettaggerError(
                f"{self.location}: the dataset '{name}' lies in other files: give jettagger those, by name or glob"
            )
        self._check_filters(name, array)
        if array.size == 0:
            return
        if array.chunks is not None:
            shape = zip(array.shape, array.chunks, strict=True)
            whole, stored = math.prod(-(-n // chunk) for n, chunk in shape), array.id.get_num_chunks()
            if stored != whole:
                raise JettaggerError(
                    f"{self.location}: the dataset '{name}' should have {whole} chunks, {stored} were ever written"
                )
        elif array.id.get_storage_size() == 0:
            raise JettaggerError(f"{self.location}: the dataset '{name}' was made but never written")

    def _check_filters(self, name: str, array: h5py.Dataset) -> None:
        properties = array.id.get_create_plist()
        for number in range(properties.get_nfilters()):
            code, _, _, title = properties.get_filter(number)
            if not h5py.h5z.filter_avail(code):
                with suppress(ImportError):
                    importlib.import_module("hdf5plugin")  # it makes its filters known
            if not h5py.h5z.filter_avail(code):
                known = title.decode(errors="replace").strip("\0") or "unnamed"
                raise JettaggerError(
                    f"{self.location}: the dataset '{name}' is compressed with the HDF5 filter {code} ({known}), "
                    "which is not here: pip install hdf5plugin"
                )

    def _entries(self) -> int:
        return int(self._contents.entries)

    def _branches(self) -> tuple[str, ...]:
        return tuple(self._contents.parts)

    def _identity(self) -> str:
        """That of the bytes, and of rows of every dataset: a column that is written anew in place is seen."""
        found = fingerprint(self.location)
        if is_remote(self.location) or all_counts(size(self.location)):
            return found
        digest = xxhash.xxh3_128()
        for name in sorted({part.array for part in self._contents.parts.values()}):
            array = self._contents.arrays[name]
            if array.dtype.kind != "O":
                starts = np.linspace(0, max(len(array) - SAMPLED, 0), BLOCKS, dtype=np.int64)
                for start in np.unique(starts):
                    digest.update(np.ascontiguousarray(array[start : start + SAMPLED]).tobytes())
        return f"{found}:{digest.hexdigest()}"

    def _bytes(self, branches: Collection[str]) -> float:
        contents = self._contents
        return contents.entries * sum(
            row_bytes(
                contents.arrays[name].dtype, contents.arrays[name].shape, needed_fields(wanted.values())
            )
            for name, wanted in self._by_array(branches).items()
        )

    def _ranges(self, branches: Collection[str]) -> list[tuple[int, int]]:
        """Edges lie on those of the largest chunks, so that these are decompressed once."""
        entries, arrays = self._contents.entries, self._contents.arrays
        chunks = [arrays[name].chunks[0] for name in self._by_array(branches) if arrays[name].chunks]
        align = max(chunks, default=1)
        per_chunk = self._bytes(branches) / max(entries, 1) * align
        step = align * max(int(base.CHUNK_BYTES / max(per_chunk, 1.0)), 1)
        return [(start, min(start + step, entries)) for start in range(0, entries, step)] or [(0, 0)]

    def _read(self, branches: list[str], start: int, stop: int) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for name, wanted in self._by_array(branches).items():
            array = self._contents.arrays[name]
            fields = needed_fields(wanted.values())
            whole = not fields or len(fields) == len(array.dtype.names)
            stored = array[start:stop] if whole else array.fields(fields)[start:stop]
            arrays |= take(stored, wanted)
        return arrays

    def _by_array(self, branches: Collection[str]) -> dict[str, dict[str, Part]]:
        return by_array({branch: self._contents.parts[branch] for branch in branches})


def _objects(file: h5py.File) -> tuple[dict[str, h5py.Group], dict[str, h5py.Dataset]]:
    """Groups and datasets by path; those that NumPy has no type for are left out."""
    groups: dict[str, h5py.Group] = {}
    arrays: dict[str, h5py.Dataset] = {}

    def note(name: str, found: Any) -> None:
        if isinstance(found, h5py.Group):
            groups[name] = found
        elif isinstance(found, h5py.Dataset) and _has_type(found):
            arrays[name] = found

    file.visititems(note)
    return groups, arrays


def _has_type(array: h5py.Dataset) -> bool:
    try:
        return array.dtype is not None
    except TypeError:
        return False
