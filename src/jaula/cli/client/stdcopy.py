"""Docker's framing of two output streams on one connection.

Each frame is a header of eight bytes (stream number, three zeros, length in big-endian order) and
its payload: the API reference under 'Attach to a container', 'Stream format'.
"""

from __future__ import annotations

from posix import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = 8
STDERR = 2


class StdcopyReader:
    """Takes the pieces of a framed stream in any cut; gives (stream, payload)."""

    __slots__ = ("_head", "_left", "_stream")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._stream = 1

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The payloads in ``data``; a payload may come in several parts."""
        position = 0
        while position < len(data):
            if self._left:
                part = data[position : position + self._left]
                position += len(part)
                self._left -= len(part)
                yield self._stream, part
                continue
            need = HEADER - len(self._head)
            self._head += data[position : position + need]
            position += need
            if len(self._head) == HEADER:
                self._stream = self._head[0]
                self._left = int.from_bytes(self._head[4:8], "big")
                self._head = b""


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[write(descriptor, view) :]
        except BlockingIOError:
            from select import POLLOUT, poll

            waiting = poll()
            waiting.register(descriptor, POLLOUT)
            waiting.poll()


def show(pieces: Iterator[bytes], *, framed: bool) -> None:
    """Write a stream's pieces to standard output, and to standard error what belongs there."""
    frames = StdcopyReader()
    for piece in pieces:
        if not framed:
            write_all(1, piece)
            continue
        for stream, payload in frames.feed(piece):
            write_all(2 if stream == STDERR else 1, payload)
