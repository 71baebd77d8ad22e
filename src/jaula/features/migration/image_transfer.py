"""Send the images of a checkpoint while CRIU writes them; receive and check them.

CRIU writes the memory of a process (``pages-NUMBER.img``) from the beginning to the end. So it is
sent while it grows. Files of a round of the pre-copy (``before-NUMBER.*``) are sent when the round
is complete. All other files are small, and are sent when CRIU has written everything.

Each end has a thread for the data (:mod:`jaula.features.migration.data_stream`). Runs of zeros are
not sent: they are holes of the file at the target.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING

from jaula.engine.threads import in_own_thread, shielded
from jaula.errors import InvalidRequest, RuntimeFailure, resource_error
from jaula.features.migration.data_stream import CHUNK, DataReader, DataWriter, decode_name
from jaula.spec.migration import (
    MAX_DATA,
    MAX_FILES,
    TOKEN_SIZE,
    DataKind,
    ProtocolError,
    SentFile,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from jaula.tls import TlsCodec

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,120}\.(?:img|json)", re.ASCII)
_PAGES = re.compile(r"pages-([0-9]{1,10})\.img", re.ASCII)
_ROUND = re.compile(r"before-([0-9]{1,2})\..+", re.ASCII)
_INTERVAL = 0.002  # seconds between two looks at a file that grows
_BLOCK = 1 << 16  # bytes; a block of zeros is not sent
_ZEROS = bytes(_BLOCK)


def split_zeros(chunk: bytearray, size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield start, end and whether there are only zeros, for runs of blocks of a chunk. Pure."""
    start, is_zero = 0, False
    for block in range(0, size, _BLOCK):
        end = min(block + _BLOCK, size)
        zeros = chunk.startswith(_ZEROS[: end - block], block) if chunk[block] == 0 else False
        if zeros is not is_zero:
            if block > start:
                yield start, block, is_zero
            start, is_zero = block, zeros
    if size > start:
        yield start, size, is_zero


class FileSender:
    """Sends the files of a directory, each one once, in a thread.

    ``finished`` is done when the thread has ended. :meth:`close` ends it.
    """

    def __init__(self, writer: DataWriter, directory: Path) -> None:
        self._writer = writer
        self._directory = directory
        self._files: dict[str, SentFile] = {}
        self._rounds: set[int] = set()
        self._complete = threading.Event()
        self._chunk = bytearray(CHUNK)
        self.finished: asyncio.Future[tuple[SentFile, ...]] = in_own_thread(self._send_all)

    @property
    def sent(self) -> int:
        """The bytes that were sent so far."""
        return self._writer.sent

    def add_round(self, number: int) -> None:
        """Let the files of a complete round of the pre-copy be sent."""
        self._rounds.add(number)

    def complete(self) -> None:
        """Let everything be sent: CRIU writes no more."""
        self._complete.set()

    async def wait(self) -> tuple[SentFile, ...]:
        """Return all files once they are sent. A cancellation does not end the thread.

        :raises LinkLost: when the connection has ended.
        :raises RuntimeFailure: when a file has changed since it was sent.
        """
        return await asyncio.shield(self.finished)

    async def close(self) -> None:
        """End the thread and the connection."""
        self._writer.abort()
        self._complete.set()
        await shielded(asyncio.wait((self.finished,)))
        self._writer.close()

    def _send_all(self) -> tuple[SentFile, ...]:
        """Send the memory while CRIU writes it, and the rest when it is complete.

        :raises LinkLost: when the connection has ended.
        :raises RuntimeFailure: when a file has changed since it was sent.
        """
        self._send_memory()
        for name, file in self._files.items():
            if os.stat(self._directory / name).st_size != file.size:
                raise RuntimeFailure(f"criu has changed {name} after it was sent")
        for name in sorted(os.listdir(self._directory)):
            if name not in self._files:
                self._send(name, grows=False)
        self._writer.write(DataKind.FINISHED)
        return tuple(self._files[name] for name in sorted(self._files))

    def _send_memory(self) -> None:
        while True:
            is_complete = self._complete.is_set()
            if of_round := self._unsent_of_rounds():
                self._send(of_round[0], grows=False)
            elif pages := self._unsent_pages():
                self._send(pages[0], grows=True)
            elif is_complete:
                return
            else:
                self._complete.wait(_INTERVAL)

    def _unsent_of_rounds(self) -> list[str]:
        if not self._rounds:
            return []
        found = [match for each in os.listdir(self._directory) if (match := _ROUND.fullmatch(each))]
        names = [match[0] for match in found if int(match[1]) in self._rounds]
        return sorted(name for name in names if name not in self._files)

    def _unsent_pages(self) -> list[str]:
        found = [match for each in os.listdir(self._directory) if (match := _PAGES.fullmatch(each))]
        found.sort(key=lambda match: int(match[1]))
        return [match[0] for match in found if match[0] not in self._files]

    def _send(self, name: str, *, grows: bool) -> None:
        """Send a file. One that grows is complete when CRIU writes the next one, or no more."""
        self._writer.write(DataKind.NAME, name.encode())
        size = 0
        fd = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while True:
                is_last = not grows or self._complete.is_set() or len(self._unsent_pages()) > 1
                if count := os.readv(fd, [self._chunk]):
                    self._send_chunk(count)
                    size += count
                elif is_last:
                    break
                else:
                    self._complete.wait(_INTERVAL)
        finally:
            os.close(fd)
        self._writer.write(DataKind.END)
        self._files[name] = SentFile(name, size)

    def _send_chunk(self, size: int) -> None:
        with memoryview(self._chunk) as chunk:
            for start, end, is_zero in split_zeros(self._chunk, size):
                if is_zero:
                    self._writer.write_zeros(end - start)
                else:
                    self._writer.write(DataKind.DATA, chunk[start:end])


class FileReceiver:
    """Writes received files into a directory that no other user may change.

    The source connects with ``token``. ``fingerprint`` is that of its certificate. ``limit`` is the
    largest size of all files together, holes included.
    """

    def __init__(self, directory: Path, fingerprint: str, limit: int) -> None:
        self._limit = self._left = limit  # bytes
        self.token = secrets.token_bytes(TOKEN_SIZE)
        self.fingerprint = fingerprint
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._directory = directory
        self._reader: DataReader | None = None
        self._ended = asyncio.Event()
        self._received: dict[str, SentFile] = {}

    async def serve(self, client: socket.socket, codec: TlsCodec) -> None:
        """Receive all files from the source; ``finished`` is set then, or has the failure.

        :raises InvalidRequest: when the source has connected already.
        """
        if self._reader is not None or self.finished.done():
            raise InvalidRequest("the files of this migration have a connection already")
        self._reader = reader = DataReader(client, codec)
        receiving = in_own_thread(lambda: self._receive_all(reader))
        try:
            await asyncio.wait((receiving,))
        finally:
            reader.abort()
            await shielded(asyncio.wait((receiving,)))
            self._ended.set()
            if not self.finished.done():
                self._finish(receiving)

    def _finish(self, receiving: asyncio.Future[None]) -> None:
        if (error := receiving.exception()) is None:
            self.finished.set_result(None)
            return
        if isinstance(error, OSError):
            what = "the files of the checkpoint"
            error = resource_error(error, what) or RuntimeFailure(f"{what}: {error}")
        self.finished.set_exception(error)
        self.finished.exception()  # retrieved, in case no task awaits it any more

    async def close(self) -> None:
        """End the connection and its thread."""
        self.finished.cancel()
        if self._reader is not None:
            self._reader.abort()
            await self._ended.wait()

    def check(self, files: tuple[SentFile, ...]) -> None:
        """Check that exactly these files have arrived.

        :raises InvalidRequest: when one is missing, or differs.
        """
        if {file.name: file for file in files} != self._received:
            raise InvalidRequest("the files of the checkpoint have not arrived as they were sent")

    def _receive_all(self, reader: DataReader) -> None:
        reader.accept()
        chunk = memoryview(bytearray(MAX_DATA))
        while True:
            kind, size = reader.read_head()
            if kind is DataKind.FINISHED:
                return
            if kind is not DataKind.NAME:
                raise ProtocolError(f"the peer sent {kind.name} in place of a file")
            reader.read_into(chunk[:size])
            self._receive(reader, decode_name(bytes(chunk[:size])), chunk)

    def _receive(self, reader: DataReader, name: str, chunk: memoryview) -> None:
        """Write one file, which does not exist.

        :raises InvalidRequest: when it has a name that no image has, or came before.
        """
        if not _NAME.fullmatch(name) or name in self._received:
            raise InvalidRequest(f"{name[:80]!r} is not a file of a checkpoint")
        if len(self._received) >= MAX_FILES:
            raise InvalidRequest(f"a checkpoint has at most {MAX_FILES} files")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._directory / name, flags, 0o644)
        try:
            size = 0
            while True:
                kind, count = reader.read_head()
                self._take(count)
                if kind is DataKind.DATA:
                    reader.read_into(chunk[:count])
                    _write(fd, chunk[:count])
                elif kind is DataKind.ZEROS:
                    os.lseek(fd, count, os.SEEK_CUR)
                elif kind is DataKind.END:
                    break
                else:
                    raise ProtocolError(f"the peer sent {kind.name} within a file")
                size += count
            os.ftruncate(fd, size)
        finally:
            os.close(fd)
        self._received[name] = SentFile(name, size)

    def _take(self, count: int) -> None:
        """Count bytes of a file.

        :raises InvalidRequest: when they are more than the source has offered.
        """
        self._left -= count
        if self._left < 0:
            raise InvalidRequest(
                f"the files of the checkpoint are larger than {self._limit} bytes, which is what"
                " the source has offered",
                hint="its memory has grown since: try again",
            )


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
