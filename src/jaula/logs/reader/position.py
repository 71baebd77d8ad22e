"""A place in one file of a log, plain or packed, from which records are read on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from jaula.logs import gzip_file
from jaula.logs.entry import LogEntry, decode

BLOCK = 64 * 1024
LONGEST_LINE = 1024 * 1024  # a record is at most 16 KiB of text, escaped six times as long


class Position(msgspec.Struct, frozen=True):
    """An offset in the plain file of an inode."""

    inode: int
    offset: int


class FileReader:
    """In a plain file, which only grows. Does not own the descriptor."""

    def __init__(self, descriptor: int, offset: int = 0) -> None:
        self.descriptor = descriptor
        self.offset = offset  # of the first byte that was not handed out

    def place(self) -> Position:
        return Position(os.fstat(self.descriptor).st_ino, self.offset)

    def to_end(self) -> None:
        """Go behind the last whole line."""
        size = os.fstat(self.descriptor).st_size
        start = max(size - LONGEST_LINE, 0)
        block = os.pread(self.descriptor, size - start, start)
        self.offset = start + block.rfind(b"\n") + 1

    def more(self) -> list[LogEntry]:
        """The records of the next block; [] at the end, where half a line may stand."""
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
                cut = len(block)  # no record is as long: damaged, go on behind it
            self.offset += cut
            if records := decode(block[:cut]):
                return records
            size = BLOCK  # only damaged lines: go on


class GzipFileReader:
    """In a packed file, forwards only. Holds a block and half a line of it."""

    def __init__(self, descriptor: int, limit: int | None = None) -> None:
        """With ``limit``, what comes after as many bytes of the plain file is left out."""
        self.descriptor = descriptor
        pieces = gzip_file.decompress(descriptor)
        self._pieces = pieces if limit is None else _first(pieces, limit)
        self._rest = b""

    def more(self) -> list[LogEntry]:
        """The records of the next block; [] at the end, and where the file is damaged."""
        for piece in self._pieces:
            data = self._rest + piece
            cut = data.rfind(b"\n") + 1
            self._rest = data[cut:] if len(data) - cut < LONGEST_LINE else b""
            if records := decode(data[:cut]):
                return records
        rest, self._rest = self._rest, b""
        return decode(rest)


def _first(pieces: Iterator[bytes], limit: int) -> Iterator[bytes]:
    for piece in pieces:
        if limit <= 0:
            return
        yield piece[:limit]
        limit -= len(piece)


def open_reader(descriptor: int) -> FileReader | GzipFileReader:
    """At the beginning of a file."""
    return (
        FileReader(descriptor)
        if gzip_file.source_inode(descriptor) is None
        else GzipFileReader(descriptor)
    )
