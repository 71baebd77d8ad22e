"""The log driver ``json-file``: one JSON document per line, in Docker's format, rotated by size.

``{"log":"text\\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}``. Source: docker docs
"JSON File logging driver". ``path`` is the newest file; :mod:`jaula.logs.rotation` manages the
rotated ones.

Facts about speed: one call of the JSON encoder escapes a chunk of many lines, and one
``bytes.replace`` splits it into entries. A NUL after each newline makes the escaped pair
unambiguous. All lines of a chunk have the time at which it was read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import log_opt
from jaula.logs.file_writer import FileWriter
from jaula.logs.log_opt import Limits
from jaula.logs.rotation import MODE, Rotation

MAX_SIZE = 10_000_000  # bytes
MAX_FILE = 3
_OPTIONS = (
    *("max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"),
    "attributes",  # set by the engine: a JSON object made from the container and the five before
)

_encode = msgspec.json.Encoder().encode
_END_OF_LINE = b"\\n\\u0000"
_LINE_END = b'\\n","stream":"'  # in entries: the log's text ends with a newline


class JsonFileWriter(FileWriter):
    """A :class:`jaula.logs.log_driver.LogWriter`."""

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
        self._max_size = max_size
        self._rotation = Rotation(path, Limits(max_size, max_file, compress), self._on_error)
        self._attributes = f'"attrs":{attributes},' if attributes else ""
        super().__init__(path)

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

    def flush(self) -> None:
        if self._descriptor >= 0:
            super().flush()
            self._rotation.finish()

    def poll(self) -> float | None:
        return None if self._rotation.helper is None else self._rotation.poll()

    def reopen(self) -> None:
        pass

    def _open_file(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, MODE)

    def _format(self, data: bytes, stream: str, stamp: str) -> bytes:
        return _records(data, stream, stamp, self._attributes)

    def _count_lines(self, entries: bytes) -> int:
        return entries.count(_LINE_END)

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
    log_opt.check_names("json-file", log_opts, _OPTIONS)
    limits = log_opt.parse_limits(log_opts, Limits(MAX_SIZE, MAX_FILE, compress=False))
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
