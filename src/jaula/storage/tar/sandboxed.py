"""Read a tar archive of a stranger, whose headers a sandboxed process parses.

The engine reads the archive, computes its digest, and writes the data of files from its buffer. The
process (:mod:`jaula.storage.tar.tar_parser`) sees the same bytes, and says where entries are and
what they state. One process reads one archive. So what a process that was taken over can say is
said about that archive, which has its own digest.

What it says is as hostile as the archive. It is converted strictly: positions rise and are inside
the bytes that the process has got, counts and values have limits. The rules of
:func:`~jaula.storage.tar.tar_reader.check_entry` are applied again.

Facts about the shared memory: F_SEAL_FUTURE_WRITE (fcntl(2), Linux 5.1) leaves the engine's mapping
writable, and no descriptor of the memory can be written or mapped writable any more.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import BinaryIO, Self

import msgspec
import msgspec.msgpack

from jaula.errors import InvalidRequest
from jaula.sandbox import sandbox_limits
from jaula.sandbox.sandbox_worker import Worker
from jaula.sandbox.start_sandbox import Task
from jaula.storage.compression import Source
from jaula.storage.decompressor import Decompressor
from jaula.storage.tar.tar_entry import BLOCK, REGULAR, TarEntry
from jaula.storage.tar.tar_parser import ENTRIES, FILLED, SLOT, SLOTS, Batch, ParseRequest
from jaula.storage.tar.tar_reader import (
    Limits,
    Stream,
    archive_too_large,
    check_entry,
    too_many_entries,
    truncated_entry,
)

TASK = Task("jaula-tar", "the archive", "jaula.storage.tar.tar_parser:parse")
LIMITS = sandbox_limits.Limits(memory=192 << 20, processor=0, patience=60.0, result=32 << 20)
"""The time is that of one slot or batch; the number of these is limited by the archive's size."""

_F_SEAL_FUTURE_WRITE = 0x0010  # linux/fcntl.h
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | _F_SEAL_FUTURE_WRITE
_SECOND = 1_000_000_000  # nanoseconds

_decode = msgspec.msgpack.Decoder(Batch).decode


class TarParser:
    """The process that parses one archive, which may start before there is a byte of it."""

    def __init__(self, subject: str = TASK.subject) -> None:
        """``subject`` names the archive in errors."""
        self._worker = Worker(TASK._replace(subject=subject), LIMITS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Idempotent."""
        self._worker.close()

    @property
    def pid(self) -> int:
        return self._worker.pid

    def stream(
        self,
        stream: Stream,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        tap: Callable[[memoryview], object] | None = None,
        padded: bool = True,
    ) -> ParsedStream:
        """Return the archive in a stream; the arguments are those of ``TarReader``."""
        return ParsedStream(self._worker, stream, limits, tap, padded)

    def file(
        self,
        file: BinaryIO,
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> ParsedFile:
        """Return the archive in a file, which no process may change meanwhile."""
        return ParsedFile(self._worker, file, limits)


@contextmanager
def open_archive(
    source: Source,
    subject: str = TASK.subject,
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    tap: Callable[[memoryview], object] | None = None,
    padded: bool = True,
) -> Iterator[ParsedStream]:
    """Yield the archive in a stream, plain or compressed.

    The parser starts while the first bytes may still be fetched. It ends with the context.
    ``tap`` is called with every decompressed byte.
    """
    with TarParser(subject) as parser, Decompressor(subject) as decompressor:
        stream, _ = decompressor.stream(source)
        yield parser.stream(stream, limits=limits, tap=tap, padded=padded)


class _ParsedArchive:
    """An archive whose entries come in batches, about the bytes of a window that moves."""

    def __init__(self, worker: Worker, limits: Limits) -> None:
        self._worker = worker
        self._limits = limits
        self._window = memoryview(b"")
        self._start = self._end = 0  # of the window in the archive
        self._batch: Iterator[tuple[TarEntry, int]] = iter(())
        self._stated = 0  # end of the data of the last entry that the process has stated
        self._entries = 0
        self._parsed = False  # the process has said all
        self._position = self._data_end = 0  # of the present entry
        self.consumed = 0

    def _advance(self) -> bool:
        """Move to the next window or batch; return False if the process has said all."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[TarEntry]:
        while (entry := self.next()) is not None:
            yield entry

    def next(self) -> TarEntry | None:
        """Return the next entry, None at the end. Unread data of the present one is skipped."""
        while True:
            for entry, offset in self._batch:
                self._position = self._data_end = offset
                if entry.type == REGULAR:
                    self._data_end += entry.size
                return entry
            if not self._advance():
                self._position = self._data_end
                return None

    def data(self) -> Iterator[memoryview]:
        """Yield the data of the present entry. A chunk is valid until the next iteration."""
        while self._position < self._data_end:
            if self._position >= self._end:
                if not self._advance():
                    raise truncated_entry()
                continue
            first = self._position - self._start
            chunk = self._window[first : first + self._data_end - self._position]
            self._position += len(chunk)
            yield chunk

    def read(self, limit: int, what: str) -> bytes:
        """Return all data of the present entry. ``what`` names it in an error.

        :raises InvalidRequest: when it is longer than ``limit`` bytes.
        """
        size = self._data_end - self._position
        if size > limit:
            raise InvalidRequest(f"{what} has {size} bytes, at most {limit} are accepted")
        return b"".join(bytes(chunk) for chunk in self.data())

    def _receive(self, most: int) -> bool:
        """Take over a batch of at most ``most`` entries about the window; return if it is the last.

        :raises WorkerEnded: when the process says what cannot be true.
        :raises InvalidRequest: when an entry is not valid.
        """
        data, last = self._worker.receive()
        try:
            batch = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._worker.invalid(str(error)) from None
        if len(batch) > most:
            raise self._worker.invalid(f"{len(batch)} entries")
        self._entries += len(batch)
        if self._entries > self._limits.entries:
            raise too_many_entries(self._limits)
        entries = []
        for each in batch:
            entry = TarEntry()
            entry.name, entry.link, entry.type = each.name, each.link, each.type
            entry.mode, entry.uid, entry.gid = each.mode, each.uid, each.gid
            entry.size, entry.mtime = each.size, each.seconds * _SECOND + each.nanoseconds
            entry.major, entry.minor, entry.xattrs = each.major, each.minor, each.xattrs
            if not (0 <= each.type < 256 and 0 <= each.mode <= 0o7777):
                raise self._worker.invalid("an entry with a value out of range")
            if not max(self._start, self._stated + BLOCK) <= each.offset <= self._end:
                raise self._worker.invalid("an entry where there is none")
            check_entry(entry, self._limits)
            self._stated = each.offset + (each.size if each.type == REGULAR else 0)
            entries.append((entry, each.offset))
        if last and self._stated > self._end:
            raise self._worker.invalid("an end before the end")
        self._parsed = last
        self._batch = iter(entries)
        return last


class ParsedStream(_ParsedArchive):
    """The archive in a stream, one slot of shared memory after the other.

    While the data of one slot is used, the process parses the next one.
    """

    def __init__(
        self,
        worker: Worker,
        stream: Stream,
        limits: Limits,
        tap: Callable[[memoryview], object] | None,
        padded: bool,
    ) -> None:
        super().__init__(worker, limits)
        self._stream = stream
        self._tap = tap
        self._padded = padded
        self._next_slot = 0
        descriptor = os.memfd_create("archive", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, SLOTS * SLOT)
            self._memory = memoryview(mmap.mmap(descriptor, SLOTS * SLOT))
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            first = self._fill()
            request = ParseRequest(limits, padded, len(first))
            worker.begin(msgspec.msgpack.encode(request), [descriptor])
        finally:
            os.close(descriptor)
        self._next = first  # what the process parses

    def _fill(self) -> memoryview:
        """Fill a slot from the stream; it has less than a slot only at the end."""
        slot = self._memory[self._next_slot * SLOT : (self._next_slot + 1) * SLOT]
        filled = 0
        while filled < SLOT and (count := self._stream.readinto(slot[filled:])):
            if self._tap is not None:
                self._tap(slot[filled : filled + count])
            filled += count
            self.consumed += count
            if self.consumed > self._limits.bytes:
                raise archive_too_large(self._limits)
        self._next_slot = (self._next_slot + 1) % SLOTS
        return slot[:filled]

    def _advance(self) -> bool:
        if self._parsed:
            return False
        present, number = self._next, self._next_slot
        self._window = present
        self._start, self._end = self._end, self._end + len(present)
        following = self._fill() if len(present) == SLOT else memoryview(b"")
        if not self._receive(SLOT // BLOCK):
            if not present:
                raise self._worker.invalid("a question after the end")
            self._worker.reply(FILLED.pack(number, len(following)))
            self._next = following
        return True

    def drain(self) -> None:
        """Read the bytes after the end of the archive, so that ``tap`` gets them."""
        while self._fill():
            pass


class ParsedFile(_ParsedArchive):
    """The archive in a file, which is mapped: its data is not copied to a buffer."""

    def __init__(self, worker: Worker, file: BinaryIO, limits: Limits) -> None:
        super().__init__(worker, limits)
        size = os.fstat(file.fileno()).st_size
        self.consumed = self._end = size
        if not size:  # which mmap(2) refuses
            self._parsed = True
            return
        self._window = memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
        # A description of its own: the process can neither write nor move the engine's position.
        descriptor = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            worker.begin(msgspec.msgpack.encode(ParseRequest(limits)), [descriptor])
        finally:
            os.close(descriptor)

    def _advance(self) -> bool:
        if self._parsed:
            return False
        if not self._receive(ENTRIES):
            self._worker.reply(b"")  # it parses on while this batch is used
        return True

    def drain(self) -> None:
        """Do nothing: the whole file is the archive."""

    def close(self) -> None:
        """Release the file. It is unmapped with its last chunk, which a traceback may reference."""
        with suppress(BufferError):
            self._window.release()
