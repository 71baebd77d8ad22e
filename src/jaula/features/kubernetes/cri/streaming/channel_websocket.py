"""WebSockets that carry the channels of a command, or a SPDY connection.

Sources: RFC 6455; ``k8s.io/streaming``, package wsstream, for the channels: the first byte of a
message is the number of its channel. In the ``base64`` variants it is a digit, and the rest of the
message is base64. ``v5.channel.k8s.io`` adds the message of the two bytes 255 and N: the client
sends nothing more on channel N. The other versions have no half-close.

wsproto reads and writes the frames. It hands on the payload of a frame as it arrives, so a message
of any length needs no memory. This module is imported with the first WebSocket.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Collection, Iterator
from typing import NamedTuple

from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from jaula.features.kubernetes.cri.streaming.backend import ClientGone
from jaula.features.kubernetes.cri.streaming.streaming_transport import (
    FRAME_SIZE,
    MAX_UNSENT,
    BufferPool,
    ProtocolError,
    ReceiveBuffer,
    Transport,
)

_CLOSE_CHANNEL = 255
_ZERO = ord("0")

_log = logging.getLogger("jaula.features.kubernetes.cri")


class Part(NamedTuple):
    """A part of a message; ``last`` ends the message."""

    data: bytes
    last: bool


class WebSocket:
    """The messages of one client."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._frames = Frames(ConnectionType.SERVER)
        self._ended = False  # the client has closed, or sent a broken frame

    async def receive(self) -> list[Part]:
        """Return the next parts of messages; none when the client is gone.

        Control frames are answered. The client has to read the answers before it is read again.
        """
        parts: list[Part] = []
        while not parts and not self._ended:
            if self._transport.unsent > MAX_UNSENT:
                try:
                    await self._transport.drain()
                except ClientGone:
                    break
            data = await self._transport.read()
            if not data:
                break
            self._frames.receive_data(data)
            for event in self._frames.events():
                if isinstance(event, CloseConnection):
                    self._ended = True
                    self._answer_close(event)
                    break
                if isinstance(event, Ping):
                    self._queue(event.response())
                elif isinstance(event, BytesMessage):
                    parts.append(Part(bytes(event.data), event.message_finished))
                elif isinstance(event, TextMessage):
                    parts.append(Part(event.data.encode(), event.message_finished))
        return parts

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """Send a message and wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        if self._frames.state is not ConnectionState.OPEN:
            raise ClientGone("the client has closed its WebSocket")
        event = TextMessage(data.decode()) if text else BytesMessage(data)
        await self._transport.send(self._frames.send(event))

    def queue(self, data: bytes) -> None:
        """Send a short binary message without waiting. It is dropped if the client is gone."""
        self._queue(BytesMessage(data))

    @property
    def unsent(self) -> int:
        """The number of bytes that wait for the client."""
        return self._transport.unsent

    async def drain(self) -> None:
        """Wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        await self._transport.drain()

    def close(self, reason: CloseReason = CloseReason.NORMAL_CLOSURE) -> None:
        """Send a close frame, if none was sent before."""
        self._queue(CloseConnection(reason))

    def _queue(self, event: Event) -> None:
        sendable = [ConnectionState.OPEN]
        if isinstance(event, CloseConnection):
            sendable.append(ConnectionState.REMOTE_CLOSING)
        if self._frames.state in sendable:
            self._transport.write(self._frames.send(event))

    def _answer_close(self, event: CloseConnection) -> None:
        """Answer a close frame, and a broken frame with wsproto's code for it."""
        if self._frames.state is ConnectionState.OPEN:
            _log.info("a WebSocket client was disconnected: %s", event.reason)
            self.close(CloseReason(event.code))
        else:
            self.close()


class TunnelTransport:
    """The transport of a protocol inside the binary messages of a WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._received: Iterator[Part] = iter(())

    @property
    def unsent(self) -> int:
        """The number of bytes that wait for the client."""
        return self._websocket.unsent

    async def read(self) -> bytes:
        """Return the next bytes, b'' when the client is gone."""
        while True:
            for part in self._received:
                if part.data:
                    return part.data
            parts = await self._websocket.receive()
            if not parts:
                return b""
            self._received = iter(parts)

    def write(self, data: bytes) -> None:
        """Queue a short frame. It is dropped if the client is gone."""
        self._websocket.queue(data)

    async def drain(self) -> None:
        """Wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        await self._websocket.drain()

    async def send(self, data: bytes) -> None:
        """Send a frame as one message, and wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        await self._websocket.send(data)

    def finish(self) -> None:
        """Close the WebSocket after what was sent before."""
        self._websocket.close()


class Channel:
    """One channel of a connection: a source, a sink and a duplex of :mod:`.backend`."""

    def __init__(self, connection: Connection, number: int, pool: BufferPool) -> None:
        self.number = number
        self.input = ReceiveBuffer(pool)
        self._connection = connection

    async def read(self) -> bytes:
        """Return the next bytes, b'' at the end."""
        return await self.input.read()

    async def write(self, data: bytes | memoryview) -> None:
        """Send bytes and wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        view = memoryview(data)
        for start in range(0, len(view), FRAME_SIZE):
            await self._connection.send(self.number, view[start : start + FRAME_SIZE])

    def end(self) -> None:
        """End both directions: these protocols have no half-close to the client."""
        self.input.discard()


class Connection:
    """The channels 0 to ``channels`` - 1 of a WebSocket. Input is accepted for ``readable``.

    ``base64`` selects the textual form, and ``half_close`` the messages of version 5.
    """

    def __init__(
        self,
        websocket: WebSocket,
        channels: int,
        readable: Collection[int],
        *,
        base64: bool = False,
        half_close: bool = False,
    ) -> None:
        self._websocket = websocket
        self._base64 = base64
        self._half_close = half_close
        self._pool = BufferPool()
        self._channels = tuple(Channel(self, number, self._pool) for number in range(channels))
        self._parser = MessageParser(base64=base64)
        for channel in self._channels:
            if channel.number not in readable:
                channel.input.discard()

    def channel(self, number: int) -> Channel:
        """Return a channel by its number."""
        return self._channels[number]

    async def run(self) -> None:
        """Distribute the input until the client is gone or violates the protocol."""
        try:
            while parts := await self._websocket.receive():
                for part in parts:
                    for number, data in self._parser.feed(part):
                        self._receive(number, data)
                await self._pool.room()
        except ProtocolError as error:
            _log.info("a WebSocket client was disconnected: %s", error)
            self._websocket.close(CloseReason.PROTOCOL_ERROR)
        finally:
            for channel in self._channels:
                channel.input.end()

    def _receive(self, number: int, data: bytes) -> None:
        """Add input to a channel. Numbers without a channel are ignored, as in the kubelet.

        :raises ProtocolError: when the client closes a channel that does not exist.
        """
        if number == _CLOSE_CHANNEL and self._half_close:
            for closed in data:
                if closed >= len(self._channels):
                    raise ProtocolError(f"the client closes the channel {closed}")
                self._channels[closed].input.end()
        elif number < len(self._channels):
            self._channels[number].input.feed(data)

    async def send(self, number: int, data: bytes | memoryview) -> None:
        """Send a message on a channel and wait until the client has room.

        :raises ClientGone: when the client is gone.
        """
        if self._base64:
            text = b"".join((bytes((_ZERO + number,)), binascii.b2a_base64(data, newline=False)))
            await self._websocket.send(text, text=True)
        else:
            await self._websocket.send(b"".join((bytes((number,)), data)))

    def finish(self) -> None:
        """Drop further input and close the WebSocket."""
        for channel in self._channels:
            channel.input.discard()
        self._websocket.close()


class MessageParser:
    """Separates the number of the channel from the data of messages that arrive in parts."""

    def __init__(self, *, base64: bool) -> None:
        self._base64 = base64
        self._channel: int | None = None  # of the current message
        self._rest = b""  # the beginning of a group of base64, fewer than four bytes

    def feed(self, part: Part) -> Iterator[tuple[int, bytes]]:
        """Yield the channel and the data of a part of a message.

        :raises ProtocolError: when the data of a message is not base64.
        """
        data = part.data
        if self._channel is None and data:
            self._channel = (data[0] - _ZERO) % 256 if self._base64 else data[0]
            data = data[1:]
        if self._channel is not None:
            yield self._channel, self._decode(data, last=part.last) if self._base64 else data
        if part.last:
            self._channel = None

    def _decode(self, data: bytes, *, last: bool) -> bytes:
        data = self._rest + data
        whole = len(data) if last else len(data) // 4 * 4
        data, self._rest = data[:whole], data[whole:]
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as error:
            raise ProtocolError(f"a message is not valid base64: {error}") from None
