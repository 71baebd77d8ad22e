"""One record of a ``json-file`` log, read; and which records are asked for. Pure.

Lines that are no record (torn by a crash, or by a full disk) are passed over. Times are compared
as text, see :mod:`jaula.logs.timestamp`.
"""

from __future__ import annotations

import msgspec

from jaula.logs import timestamp


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """One line of output, or a piece of one (no newline at its end); ``time`` is RFC 3339."""

    log: str
    stream: str
    time: str

    @property
    def data(self) -> bytes:
        return self.log.encode("utf-8", "replace")


class Selection(msgspec.Struct, frozen=True):
    """Which records: streams, and times from ``since`` on and before ``until`` (ns since 1970)."""

    stdout: bool = True
    stderr: bool = True
    since: int | None = None
    until: int | None = None

    def bounds(self) -> tuple[str, str]:
        """First and last time as text that compares with a record's."""
        first = timestamp.format_time(self.since) if self.since else ""
        return first, timestamp.format_time(self.until) if self.until else "~"


EVERYTHING = Selection()

_decoder = msgspec.json.Decoder(LogEntry)


def decode(lines: bytes) -> list[LogEntry]:
    """The records of whole lines; what is none is left out."""
    try:
        return _decoder.decode_lines(lines)
    except msgspec.MsgspecError:
        return [record for line in lines.split(b"\n") if (record := _one(line)) is not None]


def _one(line: bytes) -> LogEntry | None:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return None


def select(records: list[LogEntry], selection: Selection) -> list[LogEntry]:
    """Those of ``records`` that are asked for."""
    if selection.since or selection.until:
        first, end = selection.bounds()
        records = [r for r in records if first <= timestamp.pad_fraction(r.time) < end]
    if not selection.stdout:
        records = [record for record in records if record.stream != "stdout"]
    if not selection.stderr:
        records = [record for record in records if record.stream != "stderr"]
    return records
