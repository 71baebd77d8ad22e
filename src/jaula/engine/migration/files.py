"""The files of a checkpoint on their way: written by CRIU and sent, received and checked."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest
from jaula.spec.migration import MAX_DATA, MAX_FILES, SentFile, Transfer, TransferKind

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.migration.channel import Channel

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,120}\.(?:img|json)", re.ASCII)
_CHUNK = 1 << 19  # bytes; at most MAX_DATA
assert _CHUNK <= MAX_DATA


class FileSender:
    """Sends the files of a directory, also while they are written; each one once."""

    def __init__(self, channel: Channel, directory: Path) -> None:
        self._channel = channel
        self._directory = directory
        self._sent: dict[str, SentFile] = {}

    async def send_rest(self) -> tuple[SentFile, ...]:
        """Send every file that has not been sent; return all of them."""
        for name in sorted(await asyncio.to_thread(os.listdir, self._directory)):
            if name not in self._sent:
                await self._send(name)
        return tuple(self._sent[name] for name in sorted(self._sent))

    async def _send(self, name: str) -> None:
        await self._channel.send(Transfer(TransferKind.FILE, name))
        digest, size = hashlib.sha256(), 0
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = await asyncio.to_thread(os.open, self._directory / name, flags)
        try:
            while data := await asyncio.to_thread(os.read, fd, _CHUNK):
                await self._channel.send_data(data)
                digest.update(data)
                size += len(data)
        finally:
            os.close(fd)
        await self._channel.end_data()
        self._sent[name] = SentFile(name, size, digest.hexdigest())


class FileReceiver:
    """Writes received files into a directory that no other user may change."""

    def __init__(self, channel: Channel, directory: Path) -> None:
        self._channel = channel
        self._directory = directory
        self._received: dict[str, SentFile] = {}

    async def receive(self, name: str) -> None:
        """Write one file, which does not exist.

        :raises InvalidRequest: when it has a name that CRIU gives no image, or came before.
        """
        if not _NAME.fullmatch(name) or name in self._received:
            raise InvalidRequest(f"{name[:80]!r} is not a file of a checkpoint")
        if len(self._received) >= MAX_FILES:
            raise InvalidRequest(f"a checkpoint has at most {MAX_FILES} files")
        digest, size = hashlib.sha256(), 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = await asyncio.to_thread(os.open, self._directory / name, flags, 0o644)
        try:
            async for data in self._channel.data():
                digest.update(data)
                size += len(data)
                await asyncio.to_thread(_write, fd, data)
        finally:
            os.close(fd)
        self._received[name] = SentFile(name, size, digest.hexdigest())

    def check(self, files: tuple[SentFile, ...]) -> None:
        """Check that exactly these files have arrived.

        :raises InvalidRequest: when one is missing, or differs.
        """
        if {file.name: file for file in files} != self._received:
            raise InvalidRequest("the files of the checkpoint have not arrived as they were sent")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
