"""``GET /containers/{id}/attach/ws``: a container's streams over a WebSocket.

Follows the Docker Engine API 1.45, ``ContainerAttachWebsocket``. Output is not framed by streams.
Messages are binary from version 1.28 on, text before. The engine itself carries the bytes, unlike
those of other attached clients, since it has to translate them. It buffers one piece a direction.
"""

from __future__ import annotations

import asyncio
import socket

from msgspec import structs

from jaula.api import version
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, HijackResponse
from jaula.api.router import Routes
from jaula.api.routes.streams import wishes
from jaula.errors import InvalidRequest, NotAuthorized

_BINARY_SINCE = (1, 28)


async def attach(call: Request) -> Answer:
    """Do the handshake of RFC 6455, section 4.2, then carry the streams until one side closes."""
    from jaula.api.http import websocket

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
                attached = asyncio.ensure_future(engine.attach(ref, theirs.detach(), options))
                try:
                    await websocket.Bridge(client, ours, binary=binary).run(early, attached)
                finally:
                    attached.cancel()

    return HijackResponse(
        b"", take, lambda problem: websocket.close_frame(str(problem)), _head(proof)
    )


def _head(proof: bytes) -> bytes:
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines += [b"Sec-WebSocket-Accept: " + proof]
    lines += [name + b": " + value for name, value in version.HEADERS]
    return b"\r\n".join(lines) + b"\r\n\r\n"


ROUTES: Routes = (("GET", "/containers/{id}/attach/ws", attach),)
