"""Further processes in a running container."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, HijackResponse
from jaula.api.router import Routes
from jaula.api.routes.containers import console
from jaula.api.routes.streams import content_type, refusal
from jaula.spec.api import ExecCreate, ExecStart


async def create(call: Request) -> Answer:
    """``POST /containers/{id}/exec``."""
    body = await call.document(ExecCreate, required=True)
    return response.json({"Id": await call.engine.execs.create(call.name, body)}, 201)


async def start(call: Request) -> Answer:
    """Detached: an empty answer once it runs. Otherwise the connection becomes its streams."""
    body = await call.document(ExecStart)
    execs, exec_id = call.engine.execs, call.name
    tty = execs.tty(exec_id)

    async def take(descriptor: int | None, early: bytes) -> None:
        await execs.start(exec_id, descriptor, early, body.detach, tty, body.console_size)

    if body.detach:
        await take(None, b"")
        return response.OK
    return HijackResponse(content_type(call, tty), take, refusal(tty))


async def inspect(call: Request) -> Answer:
    """``GET /exec/{id}/json``."""
    return response.json(call.engine.execs.inspect(call.name))


async def resize(call: Request) -> Answer:
    """``POST /exec/{id}/resize``."""
    height, width = console(call.query)
    await call.engine.execs.resize(call.name, height, width)
    return response.OK


ROUTES: Routes = (
    ("POST", "/containers/{id}/exec", create),
    ("POST", "/exec/{id}/start", start),
    ("GET", "/exec/{id}/json", inspect),
    ("POST", "/exec/{id}/resize", resize),
)
