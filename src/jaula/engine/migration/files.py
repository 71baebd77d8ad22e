"""Send the images of a checkpoint while CRIU writes them; receive and check them.

CRIU writes the memory of a process (``pages-NUMBER.img``) from the beginning to the end. So it is
sent while it grows. Files of a round of the pre-copy (``before-NUMBER.*``) are sent when the round
is complete. All other files are small, and are sent when CRIU has written everything.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.spec.migration import MAX_FILES, SentFile, Transfer, TransferKind
from jaula.storage.checkpoints import CheckpointFile

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.migration.channel import Channel

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,120}\.(?:img|json)", re.ASCII)
_PAGES = re.compile(r"pages-([0-9]{1,10})\.img", re.ASCII)
_ROUND = re.compile(r"before-([0-9]{1,2})\..+", re.ASCII)
_READ = 1 << 20  # bytes that are read at once
_CHUNK = 1 << 16  # bytes of one data frame, at most
_BATCH = 4 << 20  # bytes of small files that are read together
_BUFFERED = 1 << 20  # bytes of a file that are received before it is written
_INTERVAL = 0.005  # seconds between two looks at a file that grows


class _Small(NamedTuple):
    """A small file with its content."""

    file: SentFile
    data: bytes


class FileSender:
    """Sends the files of a directory, each one once."""

    def __init__(self, channel: Channel, directory: Path) -> None:
        self._channel = channel
        self._directory = directory
        self._sent: dict[str, SentFile] = {}
        self._rounds: set[int] = set()

    def add_round(self, number: int) -> None:
        """Let the files of a complete round of the pre-copy be sent."""
        self._rounds.add(number)

    async def send_growing(self, complete: asyncio.Event) -> None:
        """Send the memory while CRIU writes it, until ``complete`` is set."""
        written = asyncio.Event()
        written.set()
        while True:
            is_complete = complete.is_set()
            if of_round := self._unsent_of_rounds():
                await self._send_growing(of_round[0], written)
            elif pages := self._unsent_pages():
                await self._send_growing(pages[0], complete)
            elif is_complete:
                return
            else:
                await asyncio.sleep(_INTERVAL)

    def _unsent_of_rounds(self) -> list[str]:
        if not self._rounds:
            return []
        found = [match for each in os.listdir(self._directory) if (match := _ROUND.fullmatch(each))]
        names = [match[0] for match in found if int(match[1]) in self._rounds]
        return sorted(name for name in names if name not in self._sent)

    def _unsent_pages(self) -> list[str]:
        found = [match for each in os.listdir(self._directory) if (match := _PAGES.fullmatch(each))]
        found.sort(key=lambda match: int(match[1]))
        return [match[0] for match in found if match[0] not in self._sent]

    async def _send_growing(self, name: str, complete: asyncio.Event) -> None:
        """Send a file that grows until ``complete`` is set, or CRIU writes the next one."""
        await self._channel.send(Transfer(TransferKind.FILE, name))
        digest, size = hashlib.sha256(), 0
        fd = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while True:
                is_last = complete.is_set() or len(self._unsent_pages()) > 1
                data = await asyncio.to_thread(os.read, fd, _READ)
                if data:
                    for start in range(0, len(data), _CHUNK):
                        await self._channel.send_data(data[start : start + _CHUNK])
                    digest.update(data)
                    size += len(data)
                elif is_last:
                    break
                else:
                    await asyncio.sleep(_INTERVAL)
        finally:
            os.close(fd)
        await self._channel.end_data()
        self._sent[name] = SentFile(name, size, digest.hexdigest())

    async def send_rest(self) -> tuple[SentFile, ...]:
        """Send every file that has not been sent; return all of them.

        :raises RuntimeFailure: when a file has changed since it was sent.
        """
        names = sorted(await asyncio.to_thread(os.listdir, self._directory))
        for name, file in self._sent.items():
            if os.stat(self._directory / name).st_size != file.size:
                raise RuntimeFailure(f"criu has changed {name} after it was sent")
        names = [name for name in names if name not in self._sent]
        while names:
            batch = await asyncio.to_thread(self._read, names)
            names = names[len(batch) :]
            for file, data in batch:
                await self._channel.send_small(Transfer(TransferKind.FILE, file.name), data)
                self._sent[file.name] = file
        return tuple(self._sent[name] for name in sorted(self._sent))

    def _read(self, names: list[str]) -> list[_Small]:
        """Read the first files of a list, as many as a batch has, but at least one."""
        batch: list[_Small] = []
        total = 0
        for name in names:
            data = (self._directory / name).read_bytes()
            file = SentFile(name, len(data), hashlib.sha256(data).hexdigest())
            batch.append(_Small(file, data))
            total += len(data)
            if total > _BATCH:
                break
        return batch


class FileReceiver:
    """Writes received files into a directory that no other user may change."""

    def __init__(self, channel: Channel, directory: Path) -> None:
        self._channel = channel
        self._directory = directory
        self._received: dict[str, SentFile] = {}

    async def receive(self, name: str) -> None:
        """Write one file, which does not exist.

        :raises InvalidRequest: when it has a name that no image has, or came before.
        """
        if not _NAME.fullmatch(name) or name in self._received:
            raise InvalidRequest(f"{name[:80]!r} is not a file of a checkpoint")
        if len(self._received) >= MAX_FILES:
            raise InvalidRequest(f"a checkpoint has at most {MAX_FILES} files")
        digest, size, buffer = hashlib.sha256(), 0, bytearray()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._directory / name, flags, 0o644)
        try:
            async for data in self._channel.data():
                digest.update(data)
                size += len(data)
                buffer += data
                if len(buffer) >= _BUFFERED:
                    await asyncio.to_thread(_write, fd, bytes(buffer))
                    buffer.clear()
            await asyncio.to_thread(_write, fd, bytes(buffer))
        finally:
            os.close(fd)
        self._received[name] = SentFile(name, size, digest.hexdigest())

    def check(self, files: tuple[SentFile, ...]) -> dict[str, CheckpointFile]:
        """Check that exactly these files have arrived; return their digests by name.

        :raises InvalidRequest: when one is missing, or differs.
        """
        if {file.name: file for file in files} != self._received:
            raise InvalidRequest("the files of the checkpoint have not arrived as they were sent")
        return {file.name: CheckpointFile(file.name, file.size, file.sha256) for file in files}


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
