"""NumPy archives (.npz, EnergyFlow) and single arrays (.npy).

An archive is read as a stream from the beginning of each array, also where it is not compressed: so its checksum
(CRC-32) is verified whenever the last entry is read. Pickled objects are never read.
"""

import os
import weakref
import zipfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import cached_property
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jettagger.data.containers.array_parts import (
    Columns,
    Part,
    by_array,
    common_length,
    parts,
    row_bytes,
    take,
)
from jettagger.data.containers.base import Source
from jettagger.data.containers.fingerprint import fingerprint
from jettagger.data.locations import opened_binary, size
from jettagger.errors import JettaggerError, unknown_name

SINGLE = "X"
"""Name of the array of a .npy file."""
NPY = b"\x93NUMPY"
SKIP_BYTES = 2**20


class Member(NamedTuple):
    """One array of a file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row(self) -> int:
        """Bytes of an entry."""
        return int(row_bytes(self.dtype, self.shape, ()))


class _Stream:
    """An open array, read from the front to the back."""

    def __init__(self, stream: IO[bytes], member: Member) -> None:
        self.stream, self.member, self.position = stream, member, 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Entries from `start` on, which is not behind what was read before."""
        self._skip((start - self.position) * self.member.row)
        shape = (stop - start, *self.member.shape[1:])
        values = np.empty(shape, self.member.dtype)
        view = memoryview(values.reshape(-1).view(np.uint8).data) if values.size else memoryview(b"")
        filled = 0
        while filled < len(view):
            piece = self.stream.read(min(len(view) - filled, 2**24))
            if not piece:
                raise EOFError(f"it ends {len(view) - filled} bytes early")
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        self.position = stop
        # Reading on to the end is what makes the archive compare its checksum.
        if stop == self.member.shape[0] and self.stream.read(1):
            raise ValueError("there are more bytes than entries")
        return values

    def _skip(self, count: int) -> None:
        if not isinstance(self.stream, zipfile.ZipExtFile):
            self.stream.seek(count, os.SEEK_CUR)
            return
        # An archive compares its checksum only if every byte is read.
        while count > 0:
            piece = self.stream.read(min(count, SKIP_BYTES))
            if not piece:
                raise EOFError(f"it ends {count} bytes early")
            count -= len(piece)


class NumpySource(Source):
    """One .npz or .npy file, and the arrays in it that have one row a jet or event."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._stack = ExitStack()
        weakref.finalize(self, self._stack.close)
        self._streams: dict[str, _Stream] = {}

    @cached_property
    def _file(self) -> IO[bytes]:
        return self._stack.enter_context(opened_binary(self.location))

    @cached_property
    def _archive(self) -> zipfile.ZipFile | None:
        """None: a single array."""
        if self._file.read(len(NPY)) == NPY:
            return None
        self._file.seek(0)
        return zipfile.ZipFile(self._file)

    @cached_property
    def _members(self) -> Mapping[str, Member]:
        return {name: self._opened(name).member for name in self._names()}

    @cached_property
    def _rows(self) -> Mapping[str, Member]:
        """The arrays with one row an entry; `data.tree` may name one."""
        members = {name: member for name, member in self._members.items() if member.shape}
        tree = self.opening.tree
        if tree is not None:
            if tree not in members:
                raise unknown_name("array", tree, members, where=self.location)
            return {tree: members[tree]}
        entries = common_length({name: member.shape[0] for name, member in members.items()}, self.location)
        return {name: member for name, member in members.items() if member.shape[0] == entries}

    @cached_property
    def _parts(self) -> Mapping[str, Part]:
        columns = Columns(self.opening.columns, self.location)
        found: dict[str, Part] = {}
        for name, member in self._rows.items():
            single = self._archive is None and member.dtype.names
            found |= parts(name, member.dtype, member.shape, columns, branch="" if single else None)
        columns.check_used()
        return found

    def _names(self) -> list[str]:
        if self._archive is None:
            return [SINGLE]
        return [name.removesuffix(".npy") for name in self._archive.namelist() if name.endswith(".npy")]

    def _opened(self, name: str) -> _Stream:
        if self._archive is not None:
            stream: IO[bytes] = self._archive.open(f"{name}.npy")
            length = self._archive.getinfo(f"{name}.npy").file_size
        else:
            stream = self._file
            stream.seek(0)
            length = size(self.location)
        member, header = _header(stream, self.location, name)
        expected = header + member.row * (member.shape[0] if member.shape else 1)
        if length != expected:
            raise JettaggerError(
                f"{self.location}: the array '{name}' of shape {member.shape} takes {expected} bytes, "
                f"there are {length}: it is truncated or damaged"
            )
        return _Stream(stream, member)

    def _entries(self) -> int:
        return next(iter(self._rows.values())).shape[0]

    def _branches(self) -> tuple[str, ...]:
        return tuple(self._parts)

    def _identity(self) -> str:
        return fingerprint(self.location)

    def _bytes(self, branches: Collection[str]) -> float:
        arrays = {self._parts[branch].array for branch in branches}
        return float(self.entries * sum(self._members[name].row for name in arrays))

    def _read(self, branches: list[str], start: int, stop: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, wanted in by_array({branch: self._parts[branch] for branch in branches}).items():
            found |= take(self._array(name, start, stop), wanted)
        return found

    def _array(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Goes on where the last read of the array stopped; begins again for what lies before."""
        stream = self._streams.pop(name, None)
        if stream is None or stream.position > start:
            stream = self._opened(name)
        values = stream.read(start, stop)
        # Kept only after success: a stream that failed stands anywhere.
        self._streams[name] = stream
        return values


def _header(stream: IO[bytes], location: str, name: str) -> tuple[Member, int]:
    """What an array's header says, and where it ends. Types that hold Python objects are refused."""
    version = np.lib.format.read_magic(stream)
    # Version 3 differs from 2 in field names beyond Latin-1 alone.
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(stream)
    if dtype.hasobject:
        raise JettaggerError(
            f"{location}: the array '{name}' holds Python objects (a pickle), which are never read: write numbers"
        )
    if fortran and len(shape) > 1:
        raise JettaggerError(
            f"{location}: the array '{name}' is in Fortran order: save numpy.ascontiguousarray of it"
        )
    if min(shape, default=0) < 0:
        raise ValueError(f"the array '{name}' has the shape {shape}")
    return Member(dtype, shape), stream.tell()
