"""Reading back a ``json-file`` log with its rotated files, plain and packed, oldest record first.

Following a log that grows is in :mod:`jaula.logs.reader.follow`.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator

import msgspec

from jaula.logs import gzip_file, timestamp
from jaula.logs.entry import EVERYTHING, LogEntry, Selection, decode, select
from jaula.logs.reader import rotated_files
from jaula.logs.reader.position import BLOCK, LONGEST_LINE, GzipFileReader, Position
from jaula.logs.reader.reader import LogReader


def read(path: str, selection: Selection = EVERYTHING) -> Iterator[LogEntry]:
    """The stored records that are asked for; none of a log that was never written.

    What is written while it reads is left out.
    """
    with contextlib.closing(LogReader(path, bounded=True)) as walk:
        while records := walk.more():
            yield from select(records, selection)


def read_tail(
    path: str, count: int, selection: Selection, upto: Position | None = None
) -> list[LogEntry]:
    """The last ``count`` lines, read from the end, so that the cost is that of what is shown.

    A packed file is read from its beginning, of which only what may be shown is kept. A line that
    was kept in pieces counts once. With ``upto``, what comes after it is left out.
    """
    found: list[LogEntry] = []  # newest first
    lines = 0
    first, _ = selection.bounds()
    descriptor = (
        _newest(path) if upto is None else rotated_files.open_neighbour(path, upto.inode, 0)
    )
    while count and descriptor is not None:
        try:
            for record in _backwards(descriptor, count - lines, selection, upto):
                if first and timestamp.pad_fraction(record.time) < first:
                    return found[::-1]
                if not select([record], selection):
                    continue
                if record.log.endswith("\n") or not found:
                    lines += 1
                if lines > count:
                    return found[::-1]
                found.append(record)
            older = rotated_files.open_neighbour(path, os.fstat(descriptor).st_ino, -1)
        finally:
            os.close(descriptor)
        descriptor, upto = older, None
    return found[::-1]


def _newest(path: str) -> int | None:
    for name in reversed(rotated_files.log_files(path)):
        try:
            return rotated_files.open_file(name)
        except FileNotFoundError:
            continue
    return None


def _backwards(
    descriptor: int, count: int, selection: Selection, upto: Position | None
) -> Iterator[LogEntry]:
    """The records of a file, the newest first: all, or at least those of ``count`` lines."""
    if gzip_file.source_inode(descriptor) is None:
        end = os.fstat(descriptor).st_size if upto is None else upto.offset
        return _plain_backwards(descriptor, end)
    limit = None if upto is None else upto.offset
    return _packed_backwards(descriptor, count, selection, limit)


def _plain_backwards(descriptor: int, end: int) -> Iterator[LogEntry]:
    rest = b""  # the beginning of a line whose end was in a later block
    while end > 0:
        start = max(end - BLOCK, 0)
        block = os.pread(descriptor, end - start, start) + rest
        cut = block.find(b"\n") + 1 if start else 0
        if start and not cut:
            rest = block if len(block) < LONGEST_LINE else b""
        else:
            rest = block[:cut]
            yield from reversed(decode(block[cut:]))
        end = start


def _packed_backwards(
    descriptor: int, count: int, selection: Selection, limit: int | None
) -> Iterator[LogEntry]:
    # Records from before ``since`` stay: they tell that no older file need be looked at.
    wanted = msgspec.structs.replace(selection, since=None)
    kept: deque[LogEntry] = deque()
    lines = 0
    cursor = GzipFileReader(descriptor, limit)
    while records := cursor.more():
        for record in select(records, wanted):
            kept.append(record)
            lines += record.log.endswith("\n")
            while lines > count + 1:  # one more, which is where the line after it begins
                lines -= kept.popleft().log.endswith("\n")
    return reversed(kept)
