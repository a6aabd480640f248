"""The file that HDF5 writes a shard to. A disk that is full crashes the HDF5 library when it closes its file, so
that it never learns of it: after the first error nothing is written any more, and the error is raised in the end.
"""

import io
import os
from pathlib import Path
from typing import Any


class Sink(io.RawIOBase):
    """A new file, to be written and read at any position."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        """The first that came."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o644)
        self._at = self._end = 0

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        done = 0
        try:
            while self.error is None and done < len(view):
                done += os.pwrite(self._file, view[done:], self._at + done)
        except OSError as error:
            self.error = error
        self._move(self._at + len(view))
        return len(view)

    def readinto(self, into: Any) -> int:
        view = memoryview(into).cast("B")
        found = os.pread(self._file, len(view), self._at) if self.error is None else b""
        view[: len(found)] = found
        view[len(found) :] = bytes(len(view) - len(found))
        self._move(self._at + len(view))
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self._end = self._at if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._file, self._end)
        except OSError as error:
            self.error = error
        return self._end

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._file)  # a network's file system may say only now that it took nothing

    def _move(self, at: int) -> None:
        self._at = at
        self._end = max(self._end, at)
