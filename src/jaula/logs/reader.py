"""Reading back a ``json-file`` log with its rotated files, oldest record first.

Lines that are no record (torn by a crash, or by a full disk) are passed over. Times are compared
as text, see :mod:`jaula.logs.timestamp`. Following a log that grows is in :mod:`jaula.logs.follow`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from jaula.logs import timestamp

_BLOCK = 64 * 1024
_LONGEST_LINE = 1024 * 1024  # a record is at most 16 KiB of text, escaped six times as long


class Record(msgspec.Struct, frozen=True, gc=False):
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
        first = timestamp.text(self.since) if self.since else ""
        return first, timestamp.text(self.until) if self.until else "~"


_decoder = msgspec.json.Decoder(Record)


def decode(lines: bytes) -> list[Record]:
    """The records of whole lines; what is none is left out."""
    try:
        return _decoder.decode_lines(lines)
    except msgspec.MsgspecError:
        return [record for line in lines.split(b"\n") if (record := _one(line)) is not None]


def _one(line: bytes) -> Record | None:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return None


def files(path: str) -> list[str]:
    """``path`` and its rotated files that exist, oldest first."""
    found: list[str] = []
    number = 0
    while os.path.exists(name := f"{path}.{number}" if number else path) or number == 0:
        found.append(name)
        number += 1
    return found[::-1]


def read(
    path: str,
    *,
    stdout: bool = True,
    stderr: bool = True,
    since: int | None = None,
    until: int | None = None,
    tail: int | None = None,
) -> Iterator[Record]:
    """The stored records that are asked for; ``tail`` is the number of lines from the end.

    A log that was never written is empty. ``since`` and ``until`` are nanoseconds since 1970.
    """
    selection = Selection(stdout, stderr, since, until)
    if tail is not None:
        yield from last(path, tail, selection)
        return
    for name in files(path):
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            cursor = Cursor(descriptor)
            while records := cursor.more():
                yield from select(records, selection)
        finally:
            os.close(descriptor)


def select(records: list[Record], selection: Selection) -> list[Record]:
    """Those of ``records`` that are asked for."""
    if selection.since or selection.until:
        first, end = selection.bounds()
        records = [r for r in records if first <= timestamp.padded(r.time) < end]
    if not selection.stdout:
        records = [record for record in records if record.stream != "stdout"]
    if not selection.stderr:
        records = [record for record in records if record.stream != "stderr"]
    return records


class Cursor:
    """A place in a file that only grows. Does not own the descriptor."""

    def __init__(self, descriptor: int, offset: int = 0) -> None:
        self.descriptor = descriptor
        self.offset = offset  # of the first byte that was not handed out

    def place(self) -> Place:
        return Place(os.fstat(self.descriptor).st_ino, self.offset)

    def to_end(self) -> None:
        """Go behind the last whole line."""
        size = os.fstat(self.descriptor).st_size
        start = max(size - _LONGEST_LINE, 0)
        block = os.pread(self.descriptor, size - start, start)
        self.offset = start + block.rfind(b"\n") + 1

    def more(self) -> list[Record]:
        """The records of the next block; [] at the end, where half a line may stand."""
        size = _BLOCK
        while True:
            block = os.pread(self.descriptor, size, self.offset)
            cut = block.rfind(b"\n") + 1
            if not cut:
                if len(block) < size:
                    return []
                if size < _LONGEST_LINE:
                    size *= 4
                    continue
                cut = len(block)  # no record is as long: damaged, go on behind it
            self.offset += cut
            if records := decode(block[:cut]):
                return records
            size = _BLOCK  # only damaged lines: go on


class Place(msgspec.Struct, frozen=True):
    """An offset in the file of an inode."""

    inode: int
    offset: int


def last(path: str, count: int, selection: Selection, upto: Place | None = None) -> list[Record]:
    """The last ``count`` lines, read from the end, so that the cost is that of what is shown.

    A line that was kept in pieces counts once. With ``upto``, what comes after it is left out.
    """
    found: list[Record] = []  # newest first
    lines = 0
    first, _ = selection.bounds()
    for name in _from_place(files(path)[::-1], upto):
        for record in _backwards(name, upto):
            if first and timestamp.padded(record.time) < first:
                return found[::-1]
            if not select([record], selection):
                continue
            if record.log.endswith("\n") or not found:
                lines += 1
            if lines > count:
                return found[::-1]
            found.append(record)
    return found[::-1]


def _from_place(names: list[str], upto: Place | None) -> list[str]:
    """Newest first, without the files that are newer than the one of ``upto``."""
    if upto is not None:
        for index, name in enumerate(names):
            try:
                if os.stat(name).st_ino == upto.inode:
                    return names[index:]
            except FileNotFoundError:
                continue  # being rotated at this moment
    return names


def _backwards(name: str, upto: Place | None) -> Iterator[Record]:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        status = os.fstat(descriptor)
        end = status.st_size
        if upto is not None and upto.inode == status.st_ino:
            end = upto.offset
        rest = b""  # the beginning of a line whose end was in a later block
        while end > 0:
            start = max(end - _BLOCK, 0)
            block = os.pread(descriptor, end - start, start) + rest
            cut = block.find(b"\n") + 1 if start else 0
            if start and not cut:
                rest = block if len(block) < _LONGEST_LINE else b""
            else:
                rest = block[:cut]
                yield from reversed(decode(block[cut:]))
            end = start
    finally:
        os.close(descriptor)
