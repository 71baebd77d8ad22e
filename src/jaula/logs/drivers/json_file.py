"""The log driver ``json-file``: one JSON document per line, in Docker's format, rotated by size.

``{"log":"text\\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}``. Source: docker docs
"JSON File logging driver". ``path`` is the newest file; :mod:`jaula.logs.rotation` manages the
rotated ones.

Facts about speed: one call of the JSON encoder escapes a chunk of many lines, and one
``bytes.replace`` splits it into entries. A NUL after each newline makes the escaped pair
unambiguous. All lines of a chunk have the time at which it was read.

Lines that could not be written, because a disk is full, are replaced by one entry that says how
many they are. It is written before the next entry. If nothing can be written until the log is
closed, it overwrites the last entries.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import options
from jaula.logs.line_buffer import LineBuffer
from jaula.logs.options import Limits
from jaula.logs.rotation import MODE, Rotation
from jaula.logs.timestamp import Clock

MAX_SIZE = 10_000_000  # bytes
MAX_FILE = 3
_OPTIONS = (
    *("max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"),
    "attributes",  # set by the engine: a JSON object made from the container and the five before
)

_encode = msgspec.json.Encoder().encode
_END_OF_LINE = b"\\n\\u0000"
_LINE_END = b'\\n","stream":"'  # in entries: the log's text ends with a newline
_TAIL = 64 * 1024  # bytes; at most a few entries are as long
_DIGITS = 20  # bytes that a larger number of lines may need


class JsonFileWriter:
    """A :class:`jaula.logs.protocol.LogWriter`."""

    def __init__(
        self,
        path: str,
        *,
        max_size: int = MAX_SIZE,
        max_file: int = MAX_FILE,
        compress: bool = False,
        attributes: str = "",
    ) -> None:
        """Open ``path`` to append. ``max_size`` is in bytes, 0 for no limit.

        ``attributes`` is a JSON object that every entry gets as ``attrs``.

        :raises OSError: when ``path`` cannot be opened.
        """
        self.dropped = 0
        self.error = ""
        self._path = path
        self._max_size = max_size
        self._rotation = Rotation(path, Limits(max_size, max_file, compress), self._on_error)
        self._attributes = f'"attrs":{attributes},' if attributes else ""
        self._clock = Clock()
        self._streams = {"stdout": LineBuffer(), "stderr": LineBuffer()}
        self._incomplete = False
        self._lost = False  # entries, since the last one that was written
        self._lost_lines = 0  # of these entries; the last part of a long line counts
        self._reason = ""
        self._size = 0
        self._descriptor = -1
        self._open()

    @classmethod
    def from_options(cls, path: str, log_opts: Mapping[str, str]) -> JsonFileWriter:
        """Return a writer with the limits of the options.

        :raises InvalidRequest: when an option does not exist or is out of range.
        """
        return cls.from_limits(path, check(log_opts), log_opts.get("attributes", ""))

    @classmethod
    def from_limits(cls, path: str, limits: Limits, attributes: str = "") -> JsonFileWriter:
        """Return a writer with these limits."""
        return cls(
            path,
            max_size=limits.max_size,
            max_file=limits.max_file,
            compress=limits.compress,
            attributes=attributes,
        )

    def write(self, stream: str, data: bytes) -> None:
        if self._descriptor < 0:
            return
        stamp = self._clock.now()
        records = b"".join(
            [
                _records(chunk, stream, stamp, self._attributes)
                for chunk in self._streams[stream].feed(data)
            ]
        )
        if records:
            self._append(records)

    def flush(self) -> None:
        if self._descriptor < 0:
            return
        for stream, lines in self._streams.items():
            if rest := lines.finish():
                self._append(_records(rest, stream, self._clock.now(), self._attributes))
        self._rotation.finish()

    def poll(self) -> float | None:
        return None if self._rotation.helper is None else self._rotation.poll()

    def close(self) -> None:
        if self._descriptor >= 0:
            self.flush()
            if self._lost and not self._report_lost():
                self._overwrite_last()
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._path, flags, MODE)
        self._size = os.fstat(self._descriptor).st_size
        # A writer that was killed may have left half an entry. The next one must not join it.
        self._incomplete = self._size > 0 and os.pread(self._descriptor, 1, self._size - 1) != b"\n"

    def _append(self, records: bytes) -> None:
        """Write whole entries, and before them how many lines are missing."""
        if self._lost and not self._report_lost():
            self._lose(records)
        else:
            self._lose(self._store(records))

    def _lose(self, records: bytes) -> None:
        if records:
            self.lose(records.count(_LINE_END), len(records), "")

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
        return _records(text.encode(), "stderr", self._clock.now(), self._attributes)

    def _overwrite_last(self) -> None:
        """Overwrite the last entries with the line about missing ones: that needs no space."""
        size = os.fstat(self._descriptor).st_size
        tail = os.pread(self._descriptor, _TAIL, max(size - _TAIL, 0))
        needed = len(self._lost_entry(self._lost_lines)) + _DIGITS
        start = tail.rfind(b"\n", 0, max(len(tail) - needed, 0)) + 1
        if start == 0 and (len(tail) < size or len(tail) < needed):
            return
        entry = self._lost_entry(self._lost_lines + tail.count(_LINE_END, start))
        padding = b" " * (len(tail) - start - len(entry))
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)  # with O_APPEND pwrite ignores offsets
            os.pwrite(self._descriptor, entry[:-1] + padding + b"\n", size - len(tail) + start)
        except OSError as error:
            self.error = f"cannot write {self._path}: {error.strerror}"

    def _store(self, records: bytes) -> bytes:
        """Write whole entries: as many to each file as its limit allows, at least one.

        Return those that could not be written.
        """
        try:
            while self._max_size and self._size + len(records) > self._max_size:
                cut = records.rfind(b"\n", 0, max(self._max_size - self._size, 0)) + 1
                if not cut and not self._size:
                    cut = records.find(b"\n") + 1
                if rest := self._put(records[:cut]):
                    return rest + records[cut:]
                records = records[cut:]
                if not records:
                    return b""
                self._rotate()
            return self._put(records)
        except OSError as error:
            self._fail(error)
            return records

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

    def _rotate(self) -> None:
        """Rotate the current file, and open a new one."""
        if os.path.lexists(self._path):  # else it was rotated, and no new file could be opened
            self._rotation.rotate()
        before = self._descriptor
        self._open()
        os.close(before)
        self._rotation.compress()

    def _on_error(self, text: str) -> None:
        self.error = text


def check(log_opts: Mapping[str, str]) -> Limits:
    """Return the limits of the options.

    :raises InvalidRequest: when an option is not valid, in Docker's words.
    """
    options.check_names("json-file", log_opts, _OPTIONS)
    limits = options.parse_limits(log_opts, Limits(MAX_SIZE, MAX_FILE, compress=False))
    if limits.compress and (limits.max_file < 2 or not limits.max_size):
        raise InvalidRequest(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )
    return limits


def _records(data: bytes, stream: str, stamp: str, attributes: str = "") -> bytes:
    """Format whole lines, or a chunk of one, as entries. Invalid UTF-8 becomes U+FFFD."""
    text = data.decode("utf-8", "replace")
    tail = f'","stream":"{stream}",{attributes}"time":"{stamp}"}}\n'.encode()
    if "\0" in text:
        return b"".join([b'{"log":' + _encode(line)[:-1] + tail for line in _split(text)])
    whole = text.endswith("\n")
    escaped = _encode(text.replace("\n", "\n\0"))
    records = b'{"log":' + escaped[:-1].replace(_END_OF_LINE, b"\\n" + tail + b'{"log":"')
    return records[:-8] if whole else records + tail


def _split(text: str) -> list[str]:
    """Split into lines with their newlines. Only a newline ends a line."""
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]
