"""Parse a tar archive in a sandboxed process (:mod:`jaula.sandbox`).

The process gets the archive in slots of shared memory, which only the engine can write, or as a
file. It answers with batches of entries, each with the position of its data in the archive. The
data itself never returns. :mod:`jaula.storage.tar.sandboxed` is the engine's side.

The module imports only what the process needs.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from io import FileIO

import msgspec
import msgspec.msgpack

from jaula.storage.tar.tar_reader import Limits, TarReader

SLOT = 1 << 20  # bytes
SLOTS = 2
ENTRIES = 1024  # in a batch of a file
_ATTRIBUTES = 1 << 20  # bytes in a batch of a file
_SECOND = 1_000_000_000  # nanoseconds
FILLED = struct.Struct("!II")
"""The engine's answer: a slot, and the number of bytes in it; 0 at the end of the archive."""


class ParseRequest(msgspec.Struct, frozen=True):
    """How an archive is read. ``filled`` is the bytes in the first slot, None for a file."""

    limits: Limits
    padded: bool = True
    filled: int | None = None


class ParsedEntry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """An entry, with the position of its data in the archive."""

    name: bytes
    link: bytes
    type: int
    mode: int
    uid: int
    gid: int
    size: int
    seconds: int
    nanoseconds: int
    major: int
    minor: int
    xattrs: dict[str, bytes]
    offset: int


Batch = list[ParsedEntry]
Ask = Callable[[bytes], tuple[bytes, list[int]]]
_encode = msgspec.msgpack.Encoder().encode


class _Entries:
    """The entries that the engine has not got yet."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.batch: Batch = []

    def send(self) -> bytes:
        """Send the batch, and return the engine's answer."""
        batch, self.batch = self.batch, []
        return self._ask(_encode(batch))[0]


class _Slots:
    """The archive in shared memory. The engine gets a batch in return for each slot."""

    def __init__(self, descriptor: int, filled: int, entries: _Entries) -> None:
        self._memory = memoryview(mmap.mmap(descriptor, SLOTS * SLOT, prot=mmap.PROT_READ))
        self._entries = entries
        self._data = self._memory[:filled]
        self._ended = not filled

    def _more(self) -> bool:
        if not self._data and not self._ended:
            slot, filled = FILLED.unpack(self._entries.send())
            self._data = self._memory[slot * SLOT : slot * SLOT + filled]
            self._ended = not filled
        return bool(self._data)

    def readinto(self, buffer: memoryview) -> int:
        if not self._more():
            return 0
        data = self._data[: len(buffer)]
        buffer[: len(data)] = data
        self._data = self._data[len(data) :]
        return len(data)

    def skip(self, count: int) -> int:
        """Skip up to ``count`` bytes, fewer at the end. Return how many."""
        left = count
        while left and self._more():
            step = min(left, len(self._data))
            self._data = self._data[step:]
            left -= step
        return count - left


class _File:
    """The archive as a file."""

    def __init__(self, descriptor: int) -> None:
        self._file = FileIO(descriptor, closefd=False)
        self._size = os.fstat(descriptor).st_size

    def readinto(self, buffer: memoryview) -> int:
        return self._file.readinto(buffer) or 0

    def skip(self, count: int) -> int:
        """Skip up to ``count`` bytes, fewer at the end. Return how many."""
        position = self._file.tell()
        return self._file.seek(min(position + count, self._size)) - position


class _Reader(TarReader):
    """Reads an archive, and does not copy what it skips."""

    def __init__(self, source: _Slots | _File, limits: Limits, *, padded: bool) -> None:
        super().__init__(source, limits=limits, padded=padded)
        self._source = source

    def _skip(self, count: int, *, needed: bool = True) -> None:
        available = self._end - self._position
        if count > available:
            self._position = self._end = 0
            skipped = self._source.skip(count - available)
            self.consumed += skipped
            super()._skip(count - available - skipped, needed=needed)  # the end: nothing is left
        else:
            self._position += count


def parse(payload: bytes, descriptors: list[int], ask: Ask) -> bytes:
    """Return the last batch of an archive. Runs in the sandboxed process."""
    request = msgspec.msgpack.decode(payload, type=ParseRequest)
    entries = _Entries(ask)
    source: _Slots | _File
    if request.filled is None:
        source = _File(descriptors[0])
    else:
        source = _Slots(descriptors[0], request.filled, entries)
    reader = _Reader(source, request.limits, padded=request.padded)
    attributes = 0
    for entry in reader:
        entries.batch.append(
            ParsedEntry(
                entry.name,
                entry.link,
                entry.type,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.size,
                *divmod(entry.mtime, _SECOND),
                entry.major,
                entry.minor,
                entry.xattrs,
                reader.offset,
            )
        )
        if entry.xattrs:
            attributes += sum(map(len, entry.xattrs.values()))
        full = len(entries.batch) == ENTRIES or attributes > _ATTRIBUTES
        if request.filled is None and full:
            entries.send()
            attributes = 0
    return _encode(entries.batch)
