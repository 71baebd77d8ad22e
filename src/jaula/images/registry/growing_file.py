"""A blob that one thread receives and another one reads: a file that grows.

The reader sees its end only when the whole has come and its digest was found right, so what is made
of it is never finished before.
"""

from __future__ import annotations

import threading
from typing import BinaryIO

_PIECE = 1 << 18


class GrowingFile:
    """``read`` waits for bytes. One thread reads, one writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._changed = threading.Condition()
        self._there = 0
        self._ended = False
        self._failure: BaseException | None = None
        self.position = 0  # bytes that were read

    def advance(self, there: int) -> None:
        """So many bytes are in the file."""
        with self._changed:
            self._there = there
            self._changed.notify()

    def finish(self) -> None:
        """It is whole and right."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def fail(self, error: BaseException) -> None:
        """It will never be whole; the reader gets ``error``."""
        with self._changed:
            self._failure = error
            self._changed.notify()

    def read(self, size: int) -> bytes:
        """The next bytes, empty at the end. Raises what the writer failed with."""
        with self._changed:
            while self.position == self._there and not self._ended and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            left = self._there - self.position
        data = self._file.read(min(size, left, _PIECE)) if left else b""
        self.position += len(data)
        return data

    def close(self) -> None:
        self._file.close()
