"""``GET /containers/{id}/attach/ws``: a container's streams over a WebSocket.

Follows the Docker Engine API 1.45, ``ContainerAttachWebsocket``: output is not framed by streams;
messages are binary from version 1.28 on, text before. Unlike other attached clients the engine
itself carries the bytes, since it has to translate them; nothing waits in it but one piece a way.
"""

from __future__ import annotations

import asyncio
import codecs
import socket

from msgspec import structs

from jaula.api import version
from jaula.api.http import websocket
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, HijackResponse
from jaula.api.http.websocket import BadFrame, Decoder, Opcode
from jaula.api.router import Routes
from jaula.api.routes.streams import wishes
from jaula.errors import InvalidRequest, NotAuthorized

_BINARY_SINCE = (1, 28)
_PIECE = 1 << 16
_FAREWELL = 1.0  # seconds for the client's answer to a close frame


async def attach(call: Request) -> Answer:
    """The handshake of RFC 6455, section 4.2; then the streams until one side closes."""
    if call.header(b"upgrade").lower() != "websocket":
        raise InvalidRequest("a WebSocket is needed here", hint="send Upgrade: websocket")
    if call.header(b"sec-websocket-version") != "13":
        raise InvalidRequest("Sec-WebSocket-Version 13 is needed")
    origin = call.header(b"origin")
    if origin and origin.partition("://")[2] != call.header(b"host"):
        raise NotAuthorized(f"a page of {origin[:80]} may not attach to containers")
    proof = websocket.accept(call.header(b"sec-websocket-key"))
    engine, ref = call.engine.containers, call.name
    options = structs.replace(wishes(call.query), framed=False)
    engine.tty(ref, control=True)
    binary = call.version >= _BINARY_SINCE

    async def take(descriptor: int, early: bytes) -> None:
        with socket.socket(fileno=descriptor) as client:
            client.setblocking(False)
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                joining = asyncio.ensure_future(engine.attach(ref, theirs.detach(), options))
                try:
                    await _Bridge(client, ours, binary=binary).run(early, joining)
                finally:
                    joining.cancel()

    return HijackResponse(
        b"", take, lambda problem: websocket.close(1011, str(problem)), _head(proof)
    )


def _head(proof: bytes) -> bytes:
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines += [b"Sec-WebSocket-Accept: " + proof]
    lines += [name + b": " + value for name, value in version.HEADERS]
    return b"\r\n".join(lines) + b"\r\n\r\n"


class _Bridge:
    """Carries bytes between a client's frames and a raw stream."""

    def __init__(self, client: socket.socket, stream: socket.socket, *, binary: bool) -> None:
        self._client = client
        self._stream = stream
        self._opcode = Opcode.BINARY if binary else Opcode.TEXT
        self._text = None if binary else codecs.getincrementaldecoder("utf-8")("replace")
        self._writing = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._closed = False  # a close frame was sent

    async def run(self, early: bytes, joining: asyncio.Future[None]) -> None:
        """Until the client closes, or the container's streams end. Raises what joining raises."""
        inward = asyncio.ensure_future(self._inward(early))
        outward = asyncio.ensure_future(self._outward())
        try:
            while not (inward.done() or outward.done()):
                waiting = {inward, outward} | (set() if joining.done() else {joining})
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if joining.done() and (problem := joining.exception()) is not None:
                    raise problem
            if outward.done() and not inward.done():
                await self._close(websocket.NORMAL)
                await asyncio.wait((inward,), timeout=_FAREWELL)
        finally:
            for task in (inward, outward):
                task.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)

    async def _send(self, data: bytes) -> None:
        async with self._writing:
            await self._loop.sock_sendall(self._client, data)

    async def _close(self, code: int, reason: str = "") -> None:
        if not self._closed:
            self._closed = True
            await self._send(websocket.close(code, reason))

    async def _outward(self) -> None:
        while data := await self._loop.sock_recv(self._stream, _PIECE):
            if self._text is not None:
                data = self._text.decode(data).encode()
            await self._send(websocket.frame(self._opcode, data))

    async def _inward(self, early: bytes) -> None:
        decoder = Decoder()
        data = early or await self._loop.sock_recv(self._client, _PIECE)
        while data:
            try:
                for part in decoder.feed(data):
                    if part.opcode is Opcode.CLOSE:
                        await self._close(websocket.NORMAL)
                        return
                    if part.opcode is Opcode.PING:
                        await self._send(websocket.frame(Opcode.PONG, part.data))
                    elif part.opcode is not Opcode.PONG:
                        await self._loop.sock_sendall(self._stream, part.data)
            except BadFrame as problem:
                await self._close(websocket.PROTOCOL_ERROR, str(problem))
                return
            except (BrokenPipeError, ConnectionResetError):
                return  # one side is gone
            data = await self._loop.sock_recv(self._client, _PIECE)


ROUTES: Routes = (("GET", "/containers/{id}/attach/ws", attach),)
