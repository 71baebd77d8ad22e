"""Read a stored ``json-file`` log with its rotated files, plain and compressed.

:mod:`jaula.logs.reader.follow` follows a log that grows.
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
from jaula.logs.reader.reader import BLOCK, LONGEST_LINE, GzipFileReader, LogReader, Position


def read(path: str, selection: Selection = EVERYTHING) -> Iterator[LogEntry]:
    """Yield the stored entries that ``selection`` includes, oldest first.

    A log that does not exist has no entries. Entries written after the call are left out.
    """
    with contextlib.closing(LogReader(path, bounded=True)) as reader:
        while block := reader.next_entries():
            yield from select(block, selection)


def read_tail(
    path: str, count: int, selection: Selection, end: Position | None = None
) -> list[LogEntry]:
    """Return the entries of the last ``count`` lines.

    Plain files are read backwards, so the cost depends on ``count`` only. A compressed file is read
    from its start, but only its last lines are kept in memory. A line that was stored in chunks
    counts once. Entries after ``end`` are left out.
    """
    entries: list[LogEntry] = []  # newest first
    lines = 0
    first, _ = selection.bounds()
    descriptor = _newest(path) if end is None else rotated_files.open_neighbour(path, end.inode, 0)
    while count and descriptor is not None:
        try:
            for entry in _backwards(descriptor, count - lines, selection, end):
                if first and timestamp.pad_fraction(entry.time) < first:
                    return entries[::-1]
                if not select([entry], selection):
                    continue
                if entry.log.endswith("\n") or not entries:
                    lines += 1
                if lines > count:
                    return entries[::-1]
                entries.append(entry)
            older = rotated_files.open_neighbour(path, os.fstat(descriptor).st_ino, -1)
        finally:
            os.close(descriptor)
        descriptor, end = older, None
    return entries[::-1]


def _newest(path: str) -> int | None:
    for name in reversed(rotated_files.log_files(path)):
        try:
            return rotated_files.open_file(name)
        except FileNotFoundError:
            continue
    return None


def _backwards(
    descriptor: int, count: int, selection: Selection, end: Position | None
) -> Iterator[LogEntry]:
    """Yield the entries of a file, newest first: all, or at least those of ``count`` lines."""
    if gzip_file.source_inode(descriptor) is None:
        offset = os.fstat(descriptor).st_size if end is None else end.offset
        return _plain_backwards(descriptor, offset)
    limit = None if end is None else end.offset
    return _compressed_backwards(descriptor, count, selection, limit)


def _plain_backwards(descriptor: int, end: int) -> Iterator[LogEntry]:
    rest = b""  # the start of a line that ends in a later block
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


def _compressed_backwards(
    descriptor: int, count: int, selection: Selection, limit: int | None
) -> Iterator[LogEntry]:
    # Entries before ``since`` are kept: they show that no older file has to be read.
    any_time = msgspec.structs.replace(selection, since=None)
    kept: deque[LogEntry] = deque()
    lines = 0
    reader = GzipFileReader(descriptor, limit)
    while block := reader.next_entries():
        for entry in select(block, any_time):
            kept.append(entry)
            lines += entry.log.endswith("\n")
            while lines > count + 1:  # one line more: the next line starts after it
                lines -= kept.popleft().log.endswith("\n")
    return reversed(kept)
