"""The bytes of one client, the buffers of its streams, and the life of its session.

A connection carries several streams. Neither SPDY as Kubernetes uses it nor its WebSocket protocols
have a flow control for each stream. So the engine stops reading from the socket while the buffer of
one stream is full, and TCP stops the client.

A half-close is a frame in both protocols. So asyncio's TLS, which cannot close one direction, is
enough here, unlike for Docker's API.

Facts about a client that is gone: a connection that is not read reports nothing. So the state of
the TCP connection is looked up from time to time.

Facts about a close with unread input: the kernel answers later input with a reset, and a client may
then fail before it reads the status of its command. So a session reads on, for a moment, until the
client has closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Coroutine
from ssl import SSLContext
from typing import Any, NamedTuple, Protocol

from jaula import stdlib_import
from jaula.features.kubernetes.cri.streaming.backend import ClientGone
from jaula.tasks import awaited_task

READ_SIZE = 1 << 16  # bytes of one read
FRAME_SIZE = 1 << 16  # bytes of output in one frame at most
STREAM_BUFFER = 1 << 18  # bytes of input that wait for one stream
CONNECTION_BUFFER = 1 << 21  # bytes of input that wait for all streams of a connection
MAX_UNSENT = 1 << 20  # bytes of frames that wait for the client before it is read again
CHUNK_COST = 96  # bytes of memory of a chunk, beside its data
WRITE_BUFFER = 1 << 17  # bytes that wait for the client before a writer waits
DRAIN_SECONDS = 5.0  # for the engine to process the input of a client that is gone
CLOSE_SECONDS = 5.0  # for a client to close its connection after the end of its session
WATCH_SECONDS = 10.0  # between two looks at the connection of a client that is not read
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)

# Source: include/net/tcp_states.h. The client has closed: TCP_TIME_WAIT, TCP_CLOSE, TCP_CLOSE_WAIT,
# TCP_LAST_ACK, TCP_CLOSING.
_CLOSED_BY_PEER = frozenset({6, 7, 8, 9, 11})

_log = logging.getLogger("jaula.features.kubernetes.cri")


class Timeouts(NamedTuple):
    """Limits of a session, in seconds."""

    idle: float = 4 * 3600.0  # without a byte in either direction
    creation: float = 30.0  # for the client to open its streams


class ProtocolError(Exception):
    """The client violates the protocol; its connection cannot be continued."""


class Transport(Protocol):
    """A connection for bytes: a socket, or the messages of a WebSocket."""

    @property
    def unsent(self) -> int:
        """The number of bytes that wait for the client."""

    async def read(self) -> bytes:
        """Return the next bytes, b'' when the client is gone."""

    def write(self, data: bytes) -> None:
        """Queue a short frame. It is dropped if the client is gone."""

    async def drain(self) -> None:
        """Wait until the client has room.

        :raises ClientGone: when the client is gone.
        """

    async def send(self, data: bytes) -> None:
        """Send a frame when it is its turn, and wait until the client has room.

        :raises ClientGone: when the client is gone.
        """

    def finish(self) -> None:
        """Send the end of the connection after what was sent before."""


class _StreamProtocol(asyncio.StreamReaderProtocol):
    """The protocol of asyncio's streams. It knows that a TLS connection is lost; they do not."""

    lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        super().connection_lost(exc)


class SocketTransport:
    """The socket of a client, with or without TLS."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        protocol: _StreamProtocol,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._early = b""
        self.last_activity = self._loop.time()

    @classmethod
    async def accept(cls, sock: socket.socket, context: SSLContext | None) -> SocketTransport:
        """Take over an accepted socket, after the TLS handshake if there is a ``context``.

        :raises OSError: when the handshake fails. The socket is closed then.
        """
        if context is not None:
            stdlib_import.enable_tls()
        loop = asyncio.get_running_loop()
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
        reader = asyncio.StreamReader(limit=READ_SIZE)
        protocol = _StreamProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop), protocol)

    def unread(self, data: bytes) -> None:
        """Let the next read return ``data``."""
        self._early = data + self._early

    @property
    def unsent(self) -> int:
        """The number of bytes that wait for the client."""
        return self._writer.transport.get_write_buffer_size()

    @property
    def _gone(self) -> bool:
        return self._protocol.lost or self._writer.is_closing()

    async def read(self) -> bytes:
        """Return the next bytes, b'' when the client is gone."""
        if self._early:
            early, self._early = self._early, b""
            return early
        try:
            data = await self._reader.read(READ_SIZE)
        except OSError:
            return b""
        self.last_activity = self._loop.time()
        return data

    def write(self, data: bytes) -> None:
        """Queue a short frame. It is dropped if the client is gone."""
        if not self._gone:
            self._writer.write(data)
            self.last_activity = self._loop.time()

    async def drain(self) -> None:
        """Wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        if self._gone:
            raise ClientGone("the client is gone")
        try:
            await self._writer.drain()
        except OSError as error:
            raise ClientGone("the client is gone") from error
        self.last_activity = self._loop.time()

    async def send(self, data: bytes) -> None:
        """Send a frame when it is its turn, and wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        async with self._sending:
            self.write(data)
            await self.drain()

    def finish(self) -> None:
        """Send the end of the stream after what was sent before. TLS has no such half-close."""
        if self._gone or not self._writer.can_write_eof():
            return
        try:
            self._writer.write_eof()
        except OSError as error:
            _log.debug("a client was gone before the end of its session: %s", error)

    @property
    def closed_by_client(self) -> bool:
        """Whether the client has closed its end, which a read would report after all input."""
        sock = self._writer.get_extra_info("socket")
        if self._gone or sock is None:
            return True
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return state[0] in _CLOSED_BY_PEER

    async def flush(self) -> None:
        """Wait until the kernel has everything that was sent.

        :raises ClientGone: when the client is gone.
        """
        if not self._gone:
            self._writer.transport.set_write_buffer_limits(high=0)
        await self.drain()

    def close(self) -> None:
        """Close the connection at once; bytes that the kernel does not have are lost."""
        self._writer.transport.abort()


class BufferPool:
    """The receive buffers of one connection."""

    def __init__(self, stream: int = STREAM_BUFFER, total: int = CONNECTION_BUFFER) -> None:
        self._stream_limit = stream
        self._total_limit = total
        self._room = asyncio.Event()
        self._room.set()
        self._full = 0  # buffers above their limit
        self.used = 0  # bytes

    async def room(self) -> None:
        """Wait until no buffer is full."""
        await self._room.wait()

    def resize(self, before: int, after: int) -> None:
        """Count the change of one buffer, in bytes."""
        self.used += after - before
        self._full += (after > self._stream_limit) - (before > self._stream_limit)
        if self._full or self.used > self._total_limit:
            self._room.clear()
        else:
            self._room.set()


class ReceiveBuffer:
    """The input of one stream that its reader has not taken yet. A :class:`~.backend.Source`."""

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._chunks: deque[bytes] = deque()
        self._cost = 0
        self._ended = False
        self._discarding = False
        self._reader: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether the client sends nothing more."""
        return self._ended

    def feed(self, data: bytes) -> None:
        """Add input. It is dropped after the end."""
        if data and not self._ended and not self._discarding:
            self._chunks.append(data)
            self._resize(self._cost + len(data) + CHUNK_COST)
            self._wake()

    def end(self) -> None:
        """Mark the end of the input, after what is buffered."""
        self._ended = True
        self._wake()

    def discard(self) -> None:
        """Drop the input that is buffered and all that follows. A reader gets the end."""
        self._discarding = True
        self._chunks.clear()
        self._resize(0)
        self._wake()

    async def read(self) -> bytes:
        """Return all buffered input when there is some, b'' at the end. For one reader."""
        while not self._chunks:
            if self._ended or self._discarding:
                return b""
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._resize(0)
        return data

    def _resize(self, cost: int) -> None:
        self._pool.resize(self._cost, cost)
        self._cost = cost

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Connection(Protocol):
    """The streams of one client over one transport."""

    async def run(self) -> None:
        """Distribute the input until the client is gone."""

    def finish(self) -> None:
        """End all streams, drop further input, and tell the client that the session is over."""


async def run_session(
    transport: SocketTransport,
    connection: Connection,
    work: Coroutine[Any, Any, None],
    idle_timeout: float,
) -> None:
    """Run ``work`` for a client until it ends, the client is gone, or nothing moves for a while.

    ``idle_timeout`` is in seconds. The transport is closed then, after the client has received
    everything.
    """
    reading = awaited_task(connection.run())
    working = awaited_task(work)
    ending = awaited_task(_watch(transport, idle_timeout))
    tasks = [reading, working, ending]
    try:
        await _first((reading, working, ending))
        if working.done():
            connection.finish()
            flushing = awaited_task(transport.flush())
            tasks.append(flushing)
            await _first((reading, flushing, ending))
            await _first((reading,), CLOSE_SECONDS)
        elif reading.done():
            await _first((working, ending), DRAIN_SECONDS)
        for task in (reading, working):
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        transport.close()


async def _first(tasks: tuple[asyncio.Task[None], ...], timeout: float | None = None) -> None:
    """Wait for the end of one task, or for a time in seconds."""
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def _watch(transport: SocketTransport, idle_timeout: float) -> None:
    """Return when no byte has moved for so long, or the client has closed."""
    loop = asyncio.get_running_loop()
    while True:
        left = transport.last_activity + idle_timeout - loop.time()
        if left <= 0:
            return
        await asyncio.sleep(min(left, WATCH_SECONDS))
        if transport.closed_by_client:
            return
