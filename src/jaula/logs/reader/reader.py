"""A walk through a log from its oldest record on, over files that are rotated and packed meanwhile.

A file that is open stays readable when it is renamed, packed or removed; what comes after it is
found by its inode (:mod:`jaula.logs.reader.rotated_files`).
"""

from __future__ import annotations

import os

from jaula.logs.entry import LogEntry
from jaula.logs.reader import rotated_files
from jaula.logs.reader.position import FileReader, GzipFileReader, Position, open_reader

_TRIES = 10


class LogReader:
    """The place that a reader has reached in a log."""

    def __init__(self, path: str, *, bounded: bool = False) -> None:
        """At the beginning of the oldest file; ``bounded`` ends at what is there now."""
        self._path = path
        self._cursor: FileReader | GzipFileReader | None = None
        self._newest = _current(path) if bounded else -1  # held, so that its inode stays its own
        self._end: Position | None = None
        if self._newest >= 0:
            status = os.fstat(self._newest)
            self._end = Position(status.st_ino, status.st_size)
        self._begin()

    def skip(self) -> Position | None:
        """Go to the end of what is there, and tell where that is."""
        self._take(_current(self._path))
        if not isinstance(self._cursor, FileReader):
            return None
        self._cursor.to_end()
        return self._cursor.place()

    def more(self) -> list[LogEntry]:
        """The next block of records; [] where there is none yet."""
        while True:
            if self._cursor is None:
                self._begin()
                if self._cursor is None:
                    return []
            if self._ended():
                return []
            if records := self._cursor.more():
                return records
            inode = os.fstat(self._cursor.descriptor).st_ino
            if (
                self._is_last(inode)
                or (following := rotated_files.open_neighbour(self._path, inode, 1)) is None
            ):
                return []
            if records := self._cursor.more():  # written before there was another file
                os.close(following)
                return records
            self._take(self._not_beyond(following))

    def close(self) -> None:
        """Close what is open; more calls do nothing."""
        self._take(-1)
        if self._newest >= 0:
            os.close(self._newest)
            self._newest = -1

    def _begin(self) -> None:
        for name in rotated_files.log_files(self._path):
            if (descriptor := _open(name)) >= 0:
                self._take(descriptor)
                return

    def _is_last(self, inode: int) -> bool:
        """Whether that is the file behind which it was not to go, or what it was packed into."""
        if self._end is None or inode == self._end.inode:
            return self._end is not None
        # Not by the origin it tells: the end may have got the inode of an older file.
        left = rotated_files.distance(self._path, inode, self._end.inode)
        return left is not None and left <= 0

    def _not_beyond(self, following: int) -> int:
        """``following``; or where all up to the end were rotated away, the end, which is open."""
        if self._end is None:
            return following
        if os.fstat(self._newest).st_nlink:
            return following
        if rotated_files.distance(self._path, self._end.inode, self._end.inode) is not None:
            return following  # packed
        os.close(following)
        return os.dup(self._newest)

    def _ended(self) -> bool:
        here = self._cursor
        if self._end is None or not isinstance(here, FileReader) or here.offset < self._end.offset:
            return False
        return os.fstat(here.descriptor).st_ino == self._end.inode

    def _take(self, descriptor: int) -> None:
        if self._cursor is not None:
            os.close(self._cursor.descriptor)
        self._cursor = open_reader(descriptor) if descriptor >= 0 else None


def _current(path: str) -> int:
    """The file that is written; between two of them there is none for a moment."""
    for _ in range(_TRIES):
        if (descriptor := _open(path)) >= 0 or len(rotated_files.log_files(path)) < 2:
            return descriptor
    return -1


def _open(name: str) -> int:
    """-1 where it does not exist."""
    try:
        return rotated_files.open_file(name)
    except FileNotFoundError:
        return -1
