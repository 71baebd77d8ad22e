"""Read a stored log: of ``json-file`` with its rotated files, or the current file of a pod's log.

:mod:`jaula.logs.reader.follow` follows a log that grows.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from jaula.logs import cri_format, gzip_file, timestamp
from jaula.logs.log_entry import EVERYTHING, LogEntry, Selection, decode, select
from jaula.logs.pod_log import PodLog
from jaula.logs.reader import rotated_files
from jaula.logs.reader.log_reader import BLOCK, LONGEST_LINE, GzipFileReader, Position, open_log


def read(log: str | PodLog, selection: Selection = EVERYTHING) -> Iterator[LogEntry]:
    """Yield the stored entries that ``selection`` includes, oldest first.

    A ``json-file`` log is its path. A log that does not exist has no entries. Entries written after
    the call are left out.
    """
    with contextlib.closing(open_log(log, bounded=True)) as reader:
        while block := reader.next_entries():
            yield from select(block, selection)


def read_tail(
    log: str | PodLog, count: int, selection: Selection, end: Position | None = None
) -> list[LogEntry]:
    """Return the entries of the last ``count`` lines.

    Plain files are read backwards, so the cost depends on ``count`` only. A compressed file is read
    from its start, but only its last lines are kept in memory. A line that was stored in chunks
    counts once. Entries after ``end`` are left out.
    """
    tail = _Tail(count, selection)
    if not count:
        return []
    if isinstance(log, PodLog):
        if (descriptor := log.open_to_read()) is not None:
            try:
                _read_pod_tail(descriptor, tail, end)
            finally:
                os.close(descriptor)
        return tail.entries[::-1]
    descriptor = _newest(log) if end is None else rotated_files.open_neighbour(log, end.inode, 0)
    while descriptor is not None:
        try:
            if tail.extend(_backwards(descriptor, count - tail.lines, selection, end)):
                break
            older = rotated_files.open_neighbour(log, os.fstat(descriptor).st_ino, -1)
        finally:
            os.close(descriptor)
        descriptor, end = older, None
    return tail.entries[::-1]


class _Tail:
    """The entries of the last ``count`` lines that ``selection`` includes, newest first."""

    def __init__(self, count: int, selection: Selection) -> None:
        self.entries: list[LogEntry] = []
        self.lines = 0
        self._count = count
        self._selection = selection
        self._first, _ = selection.bounds()

    def extend(self, entries: Iterator[LogEntry]) -> bool:
        """Add entries, newest first. Return whether the tail is complete."""
        for entry in entries:
            if self._first and timestamp.pad_fraction(entry.time) < self._first:
                return True
            if not select([entry], self._selection):
                continue
            if entry.log.endswith("\n") or not self.entries:
                self.lines += 1
            if self.lines > self._count:
                return True
            self.entries.append(entry)
        return False


def _read_pod_tail(descriptor: int, tail: _Tail, end: Position | None) -> None:
    """Read the tail of a pod's log. A file that has replaced the one of ``end`` is all after it."""
    status = os.fstat(descriptor)
    if end is None or status.st_ino == end.inode:
        offset = status.st_size if end is None else end.offset
        tail.extend(_plain_backwards(descriptor, offset, cri_format.decode))


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


def _plain_backwards(
    descriptor: int, end: int, decode_lines: Callable[[bytes], list[LogEntry]] = decode
) -> Iterator[LogEntry]:
    rest = b""  # the start of a line that ends in a later block
    while end > 0:
        start = max(end - BLOCK, 0)
        block = os.pread(descriptor, end - start, start) + rest
        cut = block.find(b"\n") + 1 if start else 0
        if start and not cut:
            rest = block if len(block) < LONGEST_LINE else b""
        else:
            rest = block[:cut]
            yield from reversed(decode_lines(block[cut:]))
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
