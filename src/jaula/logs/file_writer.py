"""The base of log drivers that append entries to a file.

Lines that could not be written, because a disk is full, are replaced by one entry that says how
many they are. It is written before the next entry. If nothing can be written until the log is
closed, it overwrites the last entries.
"""

from __future__ import annotations

import fcntl
import os
from abc import ABC, abstractmethod

from jaula.logs.line_buffer import LineBuffer
from jaula.logs.timestamp import Clock

_TAIL = 64 * 1024  # bytes; at most a few entries are as long
_DIGITS = 20  # bytes that a larger number of lines may need


class FileWriter(ABC):
    """A :class:`jaula.logs.log_driver.FileLogWriter` of one file. Subclasses format the entries."""

    def __init__(self, path: str) -> None:
        """Open the file. ``path`` names it in messages.

        :raises OSError: when it cannot be opened.
        """
        self.dropped = 0
        self.error = ""
        self._path = path
        self._clock = Clock()
        self._streams = {"stdout": LineBuffer(), "stderr": LineBuffer()}
        self._incomplete = False
        self._lost = False  # entries, since the last one that was written
        self._lost_lines = 0  # of these entries; the last part of a long line counts
        self._reason = ""
        self._size = 0
        self._descriptor = -1
        self._open()

    @abstractmethod
    def _open_file(self) -> int:
        """Open the file to read and append.

        :raises OSError: when it cannot be opened.
        """

    @abstractmethod
    def _format(self, data: bytes, stream: str, stamp: str) -> bytes:
        """Return whole lines, or a chunk of one, as entries that end in newlines."""

    @abstractmethod
    def _count_lines(self, entries: bytes) -> int:
        """Return how many lines end in the entries."""

    def write(self, stream: str, data: bytes) -> None:
        if self._descriptor < 0:
            return
        stamp = self._clock.now()
        records = b"".join(
            [self._format(chunk, stream, stamp) for chunk in self._streams[stream].feed(data)]
        )
        if records:
            self._append(records)

    def flush(self) -> None:
        if self._descriptor < 0:
            return
        for stream, lines in self._streams.items():
            if rest := lines.finish():
                self._append(self._format(rest, stream, self._clock.now()))

    def poll(self) -> float | None:
        return None

    def close(self) -> None:
        if self._descriptor >= 0:
            self.flush()
            if self._lost and not self._report_lost():
                self._overwrite_last()
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        descriptor = self._open_file()
        try:
            size = os.fstat(descriptor).st_size
            # A writer that was killed may have left half an entry. The next one must not join it.
            incomplete = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._size, self._incomplete = descriptor, size, incomplete

    def _append(self, records: bytes) -> None:
        """Write whole entries, and before them how many lines are missing."""
        if self._lost and not self._report_lost():
            self._lose(records)
        else:
            self._lose(self._store(records))

    def _lose(self, records: bytes) -> None:
        if records:
            self.lose(self._count_lines(records), len(records), "")

    def lose(self, lines: int, size: int, reason: str) -> None:
        """Note that ``size`` bytes with the ends of ``lines`` lines are not written."""
        self._lost = True
        self._lost_lines += lines
        self.dropped += size
        if reason:
            self.error = self._reason = reason

    def _report_lost(self) -> bool:
        """Write how many lines are missing. Return whether that was possible."""
        if self._store(self._lost_entry(self._lost_lines)):
            return False
        self._lost, self._lost_lines = False, 0
        return True

    def _lost_entry(self, lines: int) -> bytes:
        what = f"{lines} lines are" if lines > 1 else "1 line is"  # or a part of one
        text = f"jaula: {what} missing here: {self._reason}\n"
        return self._format(text.encode(), "stderr", self._clock.now())

    def _overwrite_last(self) -> None:
        """Overwrite the last entries with the line about missing ones: that needs no space."""
        size = os.fstat(self._descriptor).st_size
        tail = os.pread(self._descriptor, _TAIL, max(size - _TAIL, 0))
        needed = len(self._lost_entry(self._lost_lines)) + _DIGITS
        start = tail.rfind(b"\n", 0, max(len(tail) - needed, 0)) + 1
        if start == 0 and (len(tail) < size or len(tail) < needed):
            return
        entry = self._lost_entry(self._lost_lines + self._count_lines(tail[start:]))
        padding = b" " * (len(tail) - start - len(entry))
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)  # with O_APPEND pwrite ignores offsets
            os.pwrite(self._descriptor, entry[:-1] + padding + b"\n", size - len(tail) + start)
        except OSError as error:
            self.error = f"cannot write {self._path}: {error.strerror}"

    def _store(self, records: bytes) -> bytes:
        """Write whole entries. Return those that could not be written."""
        return self._put(records)

    def _put(self, records: bytes) -> bytes:
        """Write whole entries to the current file. Return those that are not whole in it."""
        if not records:
            return b""
        data = b"\n" + records if self._incomplete else records
        written = 0
        try:
            while written < len(data):
                count = os.write(self._descriptor, data[written:] if written else data)
                self._size += count
                written += count
                self._incomplete = written < len(data) and data[written - 1 : written] != b"\n"
        except OSError as error:
            self._fail(error)
            return data[max(data.rfind(b"\n", 0, written) + 1, len(data) - len(records)) :]
        return b""

    def _fail(self, error: OSError) -> None:
        self._reason = error.strerror or str(error)
        self.error = f"cannot write {self._path}: {self._reason}"
