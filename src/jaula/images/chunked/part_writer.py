"""Compress the parts of a layer, each as a stream of its own, in several threads.

A part is a gzip member or a zstd frame. Parts are written in their order. Large ones are compressed
in other threads while the caller reads the next, and their number is limited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import NamedTuple, Protocol

Compress = Callable[[bytes | bytearray], bytes]
"""Returns data as a complete compressed stream. Several threads call it."""

Placed = Callable[[int, int], None]
"""Receives the position of a part in the output, and its end: bytes."""

_PENDING = 8  # parts
_INLINE = 1 << 15  # bytes: less is compressed sooner than another thread takes it


class Output(Protocol):
    def write(self, data: bytes, /) -> object: ...


class _Part(NamedTuple):
    data: bytes | Future[bytes]
    placed: Placed | None


class PartWriter:
    """Writes parts to ``output``. ``position`` is the number of bytes written, after a flush."""

    def __init__(self, output: Output, compress: Compress, threads: Executor) -> None:
        self._output = output
        self._compress = compress
        self._threads = threads
        self._pending: deque[_Part] = deque()
        self.position = 0

    def add(self, data: bytes | bytearray, placed: Placed | None = None) -> None:
        """Compress and write a part. ``placed`` is called when its position is known.

        The data may not change afterwards.
        """
        if len(data) > _INLINE:
            part = _Part(self._threads.submit(partial(self._compress, data)), placed)
        else:
            part = _Part(self._compress(data), placed)
        self._pending.append(part)
        while len(self._pending) > _PENDING:
            self._write()

    def flush(self) -> None:
        """Write all parts."""
        while self._pending:
            self._write()

    def cancel(self) -> None:
        """Drop the parts that are not written."""
        for part in self._pending:
            if isinstance(part.data, Future):
                part.data.cancel()
        self._pending.clear()

    def write(self, data: bytes) -> None:
        """Write bytes as they are. No part is pending."""
        self._output.write(data)
        self.position += len(data)

    def _write(self) -> None:
        part = self._pending.popleft()
        data = part.data.result() if isinstance(part.data, Future) else part.data
        start = self.position
        self.write(data)
        if part.placed is not None:
            part.placed(start, self.position)
