"""Split the bytes of one stream into whole lines, and overlong lines into chunks.

Docker's copier is the model: a line is passed on when its newline has arrived. A line without one
after 16 KiB is passed on in chunks. A reader joins them, because only the last ends in a newline.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.logs.log_driver import PARTIAL


class LineBuffer:
    """Buffers the unfinished line. Chunks are cut between UTF-8 characters."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield runs of whole lines with their newlines, and chunks of at most 16 KiB without."""
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        while end - start > PARTIAL:
            cut = data.rfind(b"\n", start, start + PARTIAL) + 1
            if cut:
                yield data[start:cut]
            else:
                cut = _boundary(data, start + PARTIAL)
                yield data[start:cut]
            start = cut
        cut = data.rfind(b"\n", start) + 1
        if cut:
            yield data[start:cut]
            start = cut
        self._rest = data[start:] if start else data

    def finish(self) -> bytes:
        """Return the unfinished line, and clear the buffer."""
        rest, self._rest = self._rest, b""
        return rest


def _boundary(data: bytes, cut: int) -> int:
    """Return ``cut``, or the start of the character that it would split."""
    for back in range(1, 4):
        byte = data[cut - back]
        if byte & 0xC0 != 0x80:  # not a continuation byte
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return cut - back if length > back else cut
    return cut
