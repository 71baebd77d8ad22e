"""The connection of a migration: messages and transfers in frames, with keep-alives.

Both ends send an ``ALIVE`` frame when they are idle. An end that hears nothing for ``SILENCE``
seconds raises :class:`LinkLost`, so a cable that is pulled is noticed as a closed connection is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from jaula import stdlib_import
from jaula.errors import JaulaError, RuntimeFailure, Unavailable
from jaula.spec import migration
from jaula.spec.migration import Failed, Frame, FrameKind, FrameParser, ProtocolError
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ssl import SSLContext

    from jaula.spec.migration import Message, Transfer

_CHUNK = 1 << 16  # bytes of one read
_CONNECT_TIMEOUT = 10.0  # seconds
_MAX_HEAD = 64 << 10  # bytes of an HTTP answer

_log = logging.getLogger("jaula.migration")
_Kind = TypeVar("_Kind")


class LinkLost(Unavailable):
    """The connection between the two engines has ended."""


class Channel:
    """One connection; :meth:`close` ends it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes = b""
    ) -> None:
        self._reader, self._writer = reader, writer
        writer.transport.max_size = _CHUNK  # type: ignore[attr-defined]  # no mmap for each read
        self._parser = FrameParser()
        self._frames: deque[Frame] = deque(self._parser.feed(early))
        self._sending = asyncio.Lock()
        self._tasks = BackgroundTasks(_log, "the connection of a migration")
        self._tasks.spawn(self._keep_alive())
        self.sent = 0  # bytes of transfers
        self.received = 0

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(migration.ALIVE_INTERVAL)
            with contextlib.suppress(LinkLost):
                await self._write(migration.ALIVE)

    async def _write(self, *parts: bytes) -> None:
        async with self._sending:
            try:
                self._writer.writelines(parts)
                await self._writer.drain()
            except (OSError, RuntimeError) as error:
                raise LinkLost(f"the connection was lost: {error}") from None

    async def send(self, message: Message) -> None:
        """Send a message.

        :raises LinkLost: when the connection has ended.
        """
        await self._write(migration.message_frame(message))

    async def send_data(self, data: bytes) -> None:
        """Send a part of a transfer, of at most ``MAX_DATA`` bytes."""
        if data:
            await self._write(migration.data_head(len(data)), data)
            self.sent += len(data)

    async def send_small(self, transfer: Transfer, data: bytes) -> None:
        """Send a whole transfer."""
        parts = [migration.message_frame(transfer)]
        for start in range(0, len(data), migration.MAX_DATA):
            part = data[start : start + migration.MAX_DATA]
            parts += (migration.data_head(len(part)), part)
        await self._write(*parts, migration.END)
        self.sent += len(data)

    async def end_data(self) -> None:
        """End a transfer."""
        await self._write(migration.END)

    async def _frame(self) -> Frame:
        while True:
            while not self._frames:
                try:
                    async with asyncio.timeout(migration.SILENCE):
                        data = await self._reader.read(_CHUNK)
                except TimeoutError:
                    raise LinkLost(
                        f"the peer was silent for {migration.SILENCE:.0f} seconds"
                    ) from None
                except OSError as error:
                    raise LinkLost(f"the connection was lost: {error}") from None
                if not data:
                    raise LinkLost("the peer has closed the connection")
                self._frames.extend(self._parser.feed(data))
            frame = self._frames.popleft()
            if frame.kind is not FrameKind.ALIVE:
                return frame

    async def receive(self) -> Message:
        """Return the next message.

        :raises LinkLost: when the connection has ended.
        :raises ProtocolError: when it is not a message.
        """
        frame = await self._frame()
        if frame.kind is not FrameKind.MESSAGE:
            raise ProtocolError(f"the peer sent {frame.kind.name} in place of a message")
        return migration.decode_message(frame.payload)

    async def expect(self, kind: type[_Kind]) -> _Kind:
        """Return the next message, which must be of one kind.

        :raises RuntimeFailure: with the peer's reason, when it has failed.
        """
        message = await self.receive()
        if isinstance(message, Failed):
            raise TargetFailed(message.message, hint=message.hint or None)
        if not isinstance(message, kind):
            raise ProtocolError(
                f"the peer sent {type(message).__name__} in place of {kind.__name__}"
            )
        return message

    async def data(self) -> AsyncIterator[bytes]:
        """Yield the parts of a transfer."""
        while True:
            frame = await self._frame()
            if frame.kind is FrameKind.END:
                return
            if frame.kind is not FrameKind.DATA:
                raise ProtocolError("the peer sent a message within a transfer")
            self.received += len(frame.payload)
            yield frame.payload

    async def close(self) -> None:
        """Close the connection."""
        self._tasks.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()


class TargetFailed(RuntimeFailure):
    """The target has answered with an error, and undone what it had made."""


async def adopt(descriptor: int, early: bytes) -> Channel:
    """Return the channel of a connection that left HTTP; it owns the descriptor."""
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(False)
    try:
        reader, writer = await asyncio.open_connection(sock=sock, limit=_CHUNK)
    except BaseException:
        sock.close()
        raise
    return Channel(reader, writer, early)


async def connect(host: str, port: int, context: SSLContext, path: str) -> Channel:
    """Connect to another engine, and leave HTTP.

    :raises Unavailable: when the engine cannot be reached.
    :raises JaulaError: with the engine's reason, when it refuses.
    """
    where = f"{host}:{port}"
    stdlib_import.enable_tls()
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, limit=_CHUNK, ssl_shutdown_timeout=1.0
            )
    except TimeoutError:
        raise Unavailable(f"the engine at {where} does not answer") from None
    except OSError as error:
        reason = getattr(error, "verify_message", "")
        reason = reason or (os.strerror(error.errno) if error.errno else str(error))
        raise Unavailable(
            f"cannot connect to the engine at {where}: {reason}",
            hint="it must listen there with --tlsverify, with a certificate for this name",
        ) from None
    try:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(migration.SILENCE * 1000))
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {where}\r\nConnection: Upgrade\r\n"
            f"Upgrade: {migration.PROTOCOL}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            await _check_upgraded(reader, where)
    except BaseException as error:
        writer.close()
        if isinstance(error, TimeoutError):
            raise Unavailable(f"the engine at {where} does not answer") from None
        if isinstance(error, OSError | asyncio.IncompleteReadError):
            raise Unavailable(
                f"the engine at {where} has closed the connection: {error}",
                hint="does its CA accept this engine's certificate, for a TLS client?",
            ) from None
        raise
    return Channel(reader, writer)


async def _check_upgraded(reader: asyncio.StreamReader, where: str) -> None:
    """Read the head of the answer.

    :raises JaulaError: when it is not 101.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise ProtocolError(f"the engine at {where} sent too long an answer") from None
    status, *lines = head.split(b"\r\n")
    words = status.split(b" ", 2)
    if words[1:2] == [b"101"]:
        return
    size = 0
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            size = min(int(value), _MAX_HEAD)
    text = (await reader.readexactly(size)).decode("utf-8", "replace")
    raise _refusal(words[1:2], text, where)


def _refusal(status: list[bytes], text: str, where: str) -> JaulaError:
    import msgspec

    with contextlib.suppress(msgspec.MsgspecError):
        text = str(msgspec.json.decode(text, type=dict[str, str]).get("message", text))
    if status == [b"404"]:
        return RuntimeFailure(
            f"the engine at {where} cannot receive containers",
            hint="it is an older jaula, or another engine",
        )
    return RuntimeFailure(f"the engine at {where} refuses: {text.strip() or status}")
