"""``GET /containers/{id}/attach/ws``: a container's streams over a WebSocket.

Source: Docker Engine API 1.45, ``ContainerAttachWebsocket``. Output is not multiplexed. Messages
are binary since version 1.28, text before. Unlike for other attached clients, the engine itself
forwards the bytes, since it has to translate them. It buffers one chunk in each direction.
"""

from __future__ import annotations

import socket

from msgspec import structs

from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, HijackResponse
from jaula.api.http.router import HEADERS, Routes
from jaula.api.routes.stream_routes import attach_options
from jaula.errors import InvalidRequest, NotAuthorized
from jaula.tasks import awaited_task

_BINARY_SINCE = (1, 28)


async def attach(request: Request) -> Answer:
    """Attach over a WebSocket (RFC 6455, section 4.2), until one side closes."""
    from jaula.api.http import raw_websocket
    from jaula.spec.websocket_accept import accept_token

    engine, ref = request.engine.containers, request.name
    engine.tty(ref, control=True)
    if request.header(b"upgrade").lower() != "websocket":
        raise InvalidRequest("this route needs a WebSocket", hint="send Upgrade: websocket")
    if request.header(b"sec-websocket-version") != "13":
        raise InvalidRequest("Sec-WebSocket-Version must be 13")
    origin = request.header(b"origin")
    if origin and origin.partition("://")[2] != request.header(b"host"):
        raise NotAuthorized(f"a page of {origin[:80]} may not attach to containers")
    proof = accept_token(request.header(b"sec-websocket-key"))
    options = structs.replace(attach_options(request.query), framed=False)
    binary = request.version >= _BINARY_SINCE

    async def take(descriptor: int, early: bytes) -> None:
        with socket.socket(fileno=descriptor) as client:
            client.setblocking(False)
            ours, theirs = socket.socketpair()
            with ours:
                ours.setblocking(False)
                attached = awaited_task(engine.attach(ref, theirs.detach(), options))
                try:
                    await raw_websocket.Bridge(client, ours, binary=binary).run(early, attached)
                finally:
                    attached.cancel()

    return HijackResponse(
        b"", take, lambda error: raw_websocket.close_frame(str(error)), _head(proof)
    )


def _head(proof: bytes) -> bytes:
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines += [b"Sec-WebSocket-Accept: " + proof]
    lines += [name + b": " + value for name, value in HEADERS]
    return b"\r\n".join(lines) + b"\r\n\r\n"


ROUTES: Routes = (("GET", "/containers/{id}/attach/ws", attach),)
