"""Read a log from its oldest entry on, across files that are rotated and compressed meanwhile.

An open file stays readable when it is renamed, compressed or removed. The next file is determined
by its inode (:mod:`jaula.logs.reader.rotated_files`).

The rotated files of a pod's log are the kubelet's. Only the current one is read, and the one that
replaces it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import msgspec

from jaula.logs import cri_format, gzip_file
from jaula.logs.log_entry import LogEntry, decode
from jaula.logs.pod_log import PodLog
from jaula.logs.reader import rotated_files

_ATTEMPTS = 10  # names may change during a lookup
BLOCK = 64 * 1024  # bytes
LONGEST_LINE = 1024 * 1024  # bytes; an entry is at most 16 KiB of text, six times that escaped


class Position(msgspec.Struct, frozen=True):
    """An offset in the plain file of an inode."""

    inode: int
    offset: int


class FileReader:
    """Reads a plain file, which only grows. Does not own the descriptor."""

    def __init__(
        self, descriptor: int, decode_lines: Callable[[bytes], list[LogEntry]] = decode
    ) -> None:
        self.descriptor = descriptor
        self.offset = 0  # of the first byte that was not returned
        self._decode_lines = decode_lines

    def position(self) -> Position:
        return Position(os.fstat(self.descriptor).st_ino, self.offset)

    def seek_end(self) -> None:
        """Move to the end of the last whole line."""
        size = os.fstat(self.descriptor).st_size
        start = max(size - LONGEST_LINE, 0)
        block = os.pread(self.descriptor, size - start, start)
        self.offset = start + block.rfind(b"\n") + 1

    def next_entries(self) -> list[LogEntry]:
        """Return the entries of the next block, [] at the end. An unfinished line is left."""
        size = BLOCK
        while True:
            block = os.pread(self.descriptor, size, self.offset)
            cut = block.rfind(b"\n") + 1
            if not cut:
                if len(block) < size:
                    return []
                if size < LONGEST_LINE:
                    size *= 4
                    continue
                cut = len(block)  # no entry is that long: the file is damaged, skip the block
            self.offset += cut
            if entries := self._decode_lines(block[:cut]):
                return entries
            size = BLOCK  # only damaged lines: continue


class GzipFileReader:
    """Reads a compressed file, forwards only. Buffers one block and an unfinished line."""

    def __init__(self, descriptor: int, limit: int | None = None) -> None:
        """Read at most ``limit`` bytes of the plain file if set."""
        self.descriptor = descriptor
        chunks = gzip_file.decompress(descriptor)
        self._chunks = chunks if limit is None else _truncate(chunks, limit)
        self._rest = b""

    def next_entries(self) -> list[LogEntry]:
        """Return the entries of the next block, [] at the end and at damage."""
        for chunk in self._chunks:
            data = self._rest + chunk
            cut = data.rfind(b"\n") + 1
            self._rest = data[cut:] if len(data) - cut < LONGEST_LINE else b""
            if entries := decode(data[:cut]):
                return entries
        rest, self._rest = self._rest, b""
        return decode(rest)


def _truncate(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    for chunk in chunks:
        if limit <= 0:
            return
        yield chunk[:limit]
        limit -= len(chunk)


def open_reader(descriptor: int) -> FileReader | GzipFileReader:
    """Return a reader at the start of the file."""
    return (
        FileReader(descriptor)
        if gzip_file.source_inode(descriptor) is None
        else GzipFileReader(descriptor)
    )


class LogReader:
    """Reads a log in blocks of entries."""

    def __init__(self, path: str, *, bounded: bool = False) -> None:
        """Start at the oldest file. With ``bounded``, stop at the present end of the log."""
        self._path = path
        self._file: FileReader | GzipFileReader | None = None
        self._newest = _current(path) if bounded else -1  # open, so its inode is not reused
        self._end: Position | None = None
        if self._newest >= 0:
            status = os.fstat(self._newest)
            self._end = Position(status.st_ino, status.st_size)
        self._begin()

    def seek_end(self) -> Position | None:
        """Move to the present end of the log, and return that position."""
        self._switch_to(_current(self._path))
        if not isinstance(self._file, FileReader):
            return None
        self._file.seek_end()
        return self._file.position()

    def next_entries(self) -> list[LogEntry]:
        """Return the next block of entries, [] if there is none yet."""
        while True:
            if self._file is None:
                self._begin()
                if self._file is None:
                    return []
            if self._ended():
                return []
            if entries := self._file.next_entries():
                return entries
            inode = os.fstat(self._file.descriptor).st_ino
            if (
                self._is_last(inode)
                or (next_file := rotated_files.open_neighbour(self._path, inode, 1)) is None
            ):
                return []
            if entries := self._file.next_entries():  # written before the rotation
                os.close(next_file)
                return entries
            self._switch_to(self._at_most_end(next_file))

    def close(self) -> None:
        """Close the open files. Further calls do nothing."""
        self._switch_to(-1)
        if self._newest >= 0:
            os.close(self._newest)
            self._newest = -1

    def _begin(self) -> None:
        """Open the oldest file.

        Names move between the listing and the open: the name may then be that of a newer file.
        """
        for _ in range(_ATTEMPTS):
            names = rotated_files.log_files(self._path)
            descriptor = next((fd for name in names if (fd := _open(name)) >= 0), -1)
            self._switch_to(descriptor)
            if descriptor < 0 or rotated_files.log_files(self._path) == names:
                return

    def _is_last(self, inode: int) -> bool:
        """Return whether the file is the one to stop at, or its compressed form."""
        if self._end is None or inode == self._end.inode:
            return self._end is not None
        # The stored inode does not decide: the end may have reused the inode of an older file.
        remaining = rotated_files.distance(self._path, inode, self._end.inode)
        return remaining is not None and remaining <= 0

    def _at_most_end(self, next_file: int) -> int:
        """Return ``next_file``, or the file to stop at if all files up to it were removed."""
        if self._end is None:
            return next_file
        if os.fstat(self._newest).st_nlink:
            return next_file
        if rotated_files.distance(self._path, self._end.inode, self._end.inode) is not None:
            return next_file  # the file to stop at was compressed
        os.close(next_file)
        return os.dup(self._newest)

    def _ended(self) -> bool:
        file = self._file
        if self._end is None or not isinstance(file, FileReader) or file.offset < self._end.offset:
            return False
        return os.fstat(file.descriptor).st_ino == self._end.inode

    def _switch_to(self, descriptor: int) -> None:
        if self._file is not None:
            os.close(self._file.descriptor)
        self._file = open_reader(descriptor) if descriptor >= 0 else None


class PodLogReader:
    """Reads the current file of a pod's log in blocks of entries, then the one that replaces it."""

    def __init__(self, log: PodLog, *, bounded: bool = False) -> None:
        """Start at the start of the file. With ``bounded``, stop at its present end."""
        self._log = log
        self._file: FileReader | None = None
        self._switch_to(log.open_to_read())
        self._bounded = bounded
        self._end = os.fstat(self._file.descriptor).st_size if self._file is not None else 0

    def seek_end(self) -> Position | None:
        """Move to the present end of the log, and return that position."""
        if self._file is None:
            return None
        self._file.seek_end()
        return self._file.position()

    def next_entries(self) -> list[LogEntry]:
        """Return the next block of entries, [] if there is none yet."""
        if self._bounded:
            file = self._file
            return [] if file is None or file.offset >= self._end else file.next_entries()
        if self._file is not None and (entries := self._file.next_entries()):
            return entries
        successor = self._log.open_to_read()
        if successor is None:  # the kubelet has renamed the file, and no other one exists yet
            return []
        if self._file is None:
            entries = []
        elif os.path.samestat(os.fstat(successor), os.fstat(self._file.descriptor)):
            os.close(successor)
            return []
        else:
            entries = self._file.next_entries()  # written before the other file was opened
        if entries:
            os.close(successor)
            return entries
        self._switch_to(successor)
        assert self._file is not None
        return self._file.next_entries()

    def close(self) -> None:
        """Close the open file. Further calls do nothing."""
        self._switch_to(None)

    def _switch_to(self, descriptor: int | None) -> None:
        if self._file is not None:
            os.close(self._file.descriptor)
        self._file = None if descriptor is None else FileReader(descriptor, cri_format.decode)


def open_log(log: str | PodLog, *, bounded: bool = False) -> LogReader | PodLogReader:
    """Return a reader of a pod's log, or of the ``json-file`` log with a path.

    With ``bounded`` it stops at the present end of the log.

    :raises OSError: when the file cannot be opened.
    """
    if isinstance(log, PodLog):
        return PodLogReader(log, bounded=bounded)
    return LogReader(log, bounded=bounded)


def _current(path: str) -> int:
    """Open the current file, or return -1. During a rotation it is absent for a moment."""
    for _ in range(_ATTEMPTS):
        if (descriptor := _open(path)) >= 0 or len(rotated_files.log_files(path)) < 2:
            return descriptor
    return -1


def _open(name: str) -> int:
    """Open a file, or return -1 if it does not exist."""
    try:
        return rotated_files.open_file(name)
    except FileNotFoundError:
        return -1
