"""The entries of a log: those of ``json-file`` are decoded here, all are selected. Pure.

Lines that are not an entry (torn by a crash or a full disk) are skipped. Times are compared as
text, see :mod:`jaula.logs.timestamp`.
"""

from __future__ import annotations

import msgspec

from jaula.logs import timestamp


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """A line of output, or a chunk of one without its newline. ``time`` is RFC 3339.

    Bytes that are not UTF-8 are surrogates in ``log`` (PEP 383).
    """

    log: str
    stream: str
    time: str

    @property
    def data(self) -> bytes:
        return self.log.encode("utf-8", "surrogateescape")


class Selection(msgspec.Struct, frozen=True):
    """The streams to read, and a time range: from ``since`` on and before ``until`` (ns, 1970)."""

    stdout: bool = True
    stderr: bool = True
    since: int | None = None
    until: int | None = None

    def bounds(self) -> tuple[str, str]:
        """Return first and end time as text that can be compared with an entry's."""
        first = timestamp.format_time(self.since) if self.since else ""
        return first, timestamp.format_time(self.until) if self.until else "~"


EVERYTHING = Selection()

_decoder = msgspec.json.Decoder(LogEntry)


def decode(lines: bytes) -> list[LogEntry]:
    """Return the entries of whole lines. Lines that are not an entry are skipped."""
    try:
        return _decoder.decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return [entry for line in lines.split(b"\n") if (entry := _decode_line(line)) is not None]


def _decode_line(line: bytes) -> LogEntry | None:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def select(entries: list[LogEntry], selection: Selection) -> list[LogEntry]:
    """Return the entries that ``selection`` includes."""
    if selection.since or selection.until:
        first, end = selection.bounds()
        entries = [e for e in entries if first <= timestamp.pad_fraction(e.time) < end]
    if not selection.stdout:
        entries = [entry for entry in entries if entry.stream != "stdout"]
    if not selection.stderr:
        entries = [entry for entry in entries if entry.stream != "stderr"]
    return entries
