"""Docker's multiplexed stream: stdout and stderr on one connection (moby's ``pkg/stdcopy``).

Each frame is a header of eight bytes (stream number, three zeros, length in big-endian order) and
its payload. Source: the API reference, 'Attach to a container', 'Stream format'.
"""

from __future__ import annotations

from posix import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = 8  # bytes
STDERR = 2


class StdcopyReader:
    """Demultiplexes a stream that is fed in arbitrary pieces."""

    __slots__ = ("_head", "_left", "_stream")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._stream = 1

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (stream, payload) for the frames in ``data``.

        A payload may come in several parts.
        """
        position = 0
        while position < len(data):
            if self._left:
                part = data[position : position + self._left]
                position += len(part)
                self._left -= len(part)
                yield self._stream, part
                continue
            missing = HEADER - len(self._head)
            self._head += data[position : position + missing]
            position += missing
            if len(self._head) == HEADER:
                self._stream = self._head[0]
                self._left = int.from_bytes(self._head[4:8], "big")
                self._head = b""


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, also to a descriptor that another process made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[write(descriptor, view) :]
        except BlockingIOError:
            from select import POLLOUT, poll

            waiting = poll()
            waiting.register(descriptor, POLLOUT)
            waiting.poll()


def copy(chunks: Iterator[bytes], *, framed: bool) -> None:
    """Copy a stream to standard output.

    Of a framed stream, the stderr part goes to standard error.
    """
    frames = StdcopyReader()
    for chunk in chunks:
        if not framed:
            write_all(1, chunk)
            continue
        for stream, payload in frames.feed(chunk):
            write_all(2 if stream == STDERR else 1, payload)
