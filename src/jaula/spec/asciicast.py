"""Terminal sessions in the format asciicast, version 2.

Source: https://docs.asciinema.org/manual/asciicast/v2/: a line with a JSON header, then one JSON
array for each event: seconds since the start, code, data. The codes used here are ``o`` output,
``i`` input, ``r`` resize (``COLUMNSxROWS``) and ``m`` marker. Text is UTF-8: a sequence that the
terminal received in two reads is joined, and bytes that are not UTF-8 are replaced.
"""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable

import msgspec

PART_SIZE = 8 << 20  # bytes of a file, before the next one begins
MAX_PARTS = 8  # files of one session
SUFFIX = ".cast"
FULL = "the recording has its full size"
COLUMNS, ROWS = 80, 24  # of a terminal whose size is not known
_encode = msgspec.json.Encoder().encode
_decoder = codecs.getincrementaldecoder("utf-8")


def header(title: str, columns: int, rows: int, timestamp: int) -> bytes:
    """Return the first line of a file. ``timestamp`` is in seconds since the epoch. Pure."""
    document = {
        "version": 2,
        "width": columns or COLUMNS,
        "height": rows or ROWS,
        "timestamp": timestamp,
        "title": title,
        "env": {"TERM": "xterm-256color"},
    }
    return _encode(document) + b"\n"


def event(seconds: float, code: str, text: str) -> bytes:
    """Return the line of an event. Pure."""
    return _encode((round(seconds, 6), code, text)) + b"\n"


class CastWriter:
    """Writes one session to files of bounded size.

    ``open_part`` returns a descriptor of a new file, for its number from 1 on; the writer closes
    it. After ``max_parts`` files the last event is a marker. ``dropped`` counts the bytes of input
    and output beyond that, and those that the disk did not take: a session goes on without its
    recording.
    """

    def __init__(
        self,
        open_part: Callable[[int], int],
        title: str,
        columns: int = 0,
        rows: int = 0,
        *,
        part_size: int = PART_SIZE,
        max_parts: int = MAX_PARTS,
    ) -> None:
        """Open the first file and write its header.

        :raises OSError: when it cannot be opened.
        """
        self.dropped = 0
        self._open_part = open_part
        self._title = title
        self._size = (columns, rows)
        self._part_size = part_size
        self._max_parts = max_parts
        self._decoders = {code: _decoder("replace") for code in "io"}
        self._part = 0
        self._written = 0
        self._start = 0.0
        self._fd = -1
        self._begin()

    def output(self, data: bytes) -> None:
        """Add what the terminal printed."""
        self._append("o", self._decoders["o"].decode(data), len(data))

    def input(self, data: bytes) -> None:
        """Add what the client typed."""
        self._append("i", self._decoders["i"].decode(data), len(data))

    def resize(self, columns: int, rows: int) -> None:
        """Add the new size of the terminal."""
        self._size = (columns, rows)
        self._append("r", f"{columns}x{rows}", 0)

    def close(self) -> None:
        """Close the file. Later events are dropped."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self) -> None:
        fd = self._open_part(self._part + 1)
        self.close()
        self._part, self._fd, self._start = self._part + 1, fd, time.monotonic()
        line = header(self._title, *self._size, int(time.time()))
        self._written = len(line)
        self._write(line)

    def _append(self, code: str, text: str, size: int) -> None:
        """Add an event of ``size`` bytes of the session."""
        if self._fd < 0:
            self.dropped += size
            return
        if not text:
            return
        try:
            line = event(time.monotonic() - self._start, code, text)
            if self._written + len(line) > self._part_size:
                if self._part >= self._max_parts:
                    self._write(event(time.monotonic() - self._start, "m", FULL))
                    self.dropped += size
                    self.close()
                    return
                self._begin()
                line = event(0.0, code, text)
            self._written += len(line)
            self._write(line)
        except OSError:  # the disk is full
            self.dropped += size
            self.close()

    def _write(self, line: bytes) -> None:
        while line:
            line = line[os.write(self._fd, line) :]
