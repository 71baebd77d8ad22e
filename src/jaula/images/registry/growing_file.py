"""A file that one thread writes and another one reads.

The reader sees the end only after the writer has verified the digest of the whole content. So
nothing derived from it is completed earlier.
"""

from __future__ import annotations

import threading
from typing import BinaryIO

_CHUNK = 1 << 18  # bytes


class GrowingFile:
    """``read`` waits for bytes. One thread reads, one writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._changed = threading.Condition()
        self._available = 0
        self._ended = False
        self._failure: BaseException | None = None
        self.position = 0  # bytes read so far

    def advance(self, available: int) -> None:
        """Announce that the file has ``available`` bytes."""
        with self._changed:
            self._available = available
            self._changed.notify()

    def finish(self) -> None:
        """Announce that the file is complete and verified."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def fail(self, error: BaseException) -> None:
        """Announce that the file will never be complete. The reader gets ``error``."""
        with self._changed:
            self._failure = error
            self._changed.notify()

    def read(self, size: int) -> bytes:
        """Return the next bytes, empty at the end. Raise the error of the writer if it failed."""
        with self._changed:
            while self.position == self._available and not self._ended and self._failure is None:
                self._changed.wait()
            if self._failure is not None:
                raise self._failure
            left = self._available - self.position
        data = self._file.read(min(size, left, _CHUNK)) if left else b""
        self.position += len(data)
        return data

    def close(self) -> None:
        self._file.close()
