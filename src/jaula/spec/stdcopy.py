"""The framing of stdout and stderr in one stream.

Source: moby ``pkg/stdcopy`` and 'Attach to a container, Stream format' of the Engine API: a byte
for the stream, three zero bytes, the length as 32 bits big endian, then that many bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
HEADER_SIZE = 8  # bytes


def frame(stream: str, data: bytes) -> bytes:
    """Return ``data`` with its header; ``stream`` is stdin, stdout or stderr."""
    return bytes((STREAMS[stream], 0, 0, 0)) + len(data).to_bytes(4, "big") + data


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
            missing = HEADER_SIZE - len(self._head)
            self._head += data[position : position + missing]
            position += missing
            if len(self._head) == HEADER_SIZE:
                self._stream = self._head[0]
                self._left = int.from_bytes(self._head[4:8], "big")
                self._head = b""
