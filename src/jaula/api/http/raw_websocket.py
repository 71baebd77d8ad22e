"""One WebSocket that carries a raw byte stream (RFC 6455).

wsproto reads and writes the frames, without input or output of its own. It hands on the payload of
a data frame as it arrives, so a frame of any length needs no memory. A control frame has at most
125 bytes (section 5.5). Import this module lazily: wsproto needs 8 ms and 0.6 MiB.
"""

from __future__ import annotations

import asyncio
import codecs
import socket

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

_CHUNK = 1 << 16  # bytes
_CLOSE_TIMEOUT = 1.0  # seconds for the client's answer to a close frame


def close_frame(reason: str) -> bytes:
    """Return the close frame of an internal error. wsproto cuts the reason to what fits."""
    event = CloseConnection(CloseReason.INTERNAL_ERROR, _encodable(reason))
    return Connection(ConnectionType.SERVER).send(event)


class Bridge:
    """The forwarder of bytes between a client's frames and a raw stream.

    Messages to the client are binary or text. In text, U+FFFD replaces bytes that are not UTF-8.
    A text message of the client that is not UTF-8 closes the connection with code 1007.
    """

    def __init__(self, client: socket.socket, stream: socket.socket, *, binary: bool) -> None:
        self._client = client
        self._stream = stream
        self._text = None if binary else codecs.getincrementaldecoder("utf-8")("replace")
        self._connection = Connection(ConnectionType.SERVER)
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    async def run(self, early: bytes, attached: asyncio.Future[None]) -> None:
        """Carry bytes until the client closes or the container's streams end.

        ``early`` is what the client sent after its handshake. An exception of ``attached`` ends the
        bridge and is raised.
        """
        inward = asyncio.ensure_future(self._inward(early))
        outward = asyncio.ensure_future(self._outward())
        try:
            while True:
                if attached.done() and (error := attached.exception()) is not None:
                    raise error
                if inward.done() or outward.done():
                    break
                waiting = {inward, outward} | (set() if attached.done() else {attached})
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if outward.done() and not inward.done():
                await self._send(CloseConnection(CloseReason.NORMAL_CLOSURE))
                await asyncio.wait((inward,), timeout=_CLOSE_TIMEOUT)
        finally:
            for task in (inward, outward):
                task.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)

    async def _send(self, event: Event) -> None:
        """Send a frame, but nothing after our close frame."""
        async with self._writing:
            sendable = [ConnectionState.OPEN]
            if isinstance(event, CloseConnection):
                sendable.append(ConnectionState.REMOTE_CLOSING)
            if self._connection.state in sendable:
                await self._loop.sock_sendall(self._client, self._connection.send(event))

    async def _outward(self) -> None:
        while data := await self._loop.sock_recv(self._stream, _CHUNK):
            if self._text is None:
                await self._send(BytesMessage(data))
            else:
                await self._send(TextMessage(self._text.decode(data)))

    async def _inward(self, early: bytes) -> None:
        data = early or await self._loop.sock_recv(self._client, _CHUNK)
        try:
            while data:
                self._connection.receive_data(data)
                for event in self._connection.events():
                    if isinstance(event, CloseConnection):
                        await self._answer_close(event)
                        return
                    await self._handle(event)
                data = await self._loop.sock_recv(self._client, _CHUNK)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client or the container is gone

    async def _handle(self, event: Event) -> None:
        if isinstance(event, Ping):
            await self._send(event.response())
        elif isinstance(event, BytesMessage):
            await self._loop.sock_sendall(self._stream, event.data)
        elif isinstance(event, TextMessage):
            await self._loop.sock_sendall(self._stream, event.data.encode())

    async def _answer_close(self, event: CloseConnection) -> None:
        """Answer a close frame with 1000, as moby does, and a broken frame with wsproto's code."""
        if self._connection.state is ConnectionState.OPEN:
            answer = CloseConnection(event.code, _encodable(event.reason or ""))
        else:
            answer = CloseConnection(CloseReason.NORMAL_CLOSURE)
        await self._send(answer)


def _encodable(reason: str) -> str:
    """Return the text without lone surrogates, which a close frame cannot hold."""
    return reason.encode("utf-8", "replace").decode()
