"""Read the entries of one log file, plain or compressed, from a position on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from jaula.logs import gzip_file
from jaula.logs.entry import LogEntry, decode

BLOCK = 64 * 1024  # bytes
LONGEST_LINE = 1024 * 1024  # bytes; an entry is at most 16 KiB of text, six times that escaped


class Position(msgspec.Struct, frozen=True):
    """An offset in the plain file of an inode."""

    inode: int
    offset: int


class FileReader:
    """Reads a plain file, which only grows. Does not own the descriptor."""

    def __init__(self, descriptor: int, offset: int = 0) -> None:
        self.descriptor = descriptor
        self.offset = offset  # of the first byte that was not returned

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
            if entries := decode(block[:cut]):
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
