"""Exec processes in running containers."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, HijackResponse
from jaula.api.http.router import Routes
from jaula.api.routes.container_routes import console_size
from jaula.api.routes.stream_routes import content_type, error_writer
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ExecCreate, ExecStart


async def create(request: Request) -> Answer:
    """Create an exec instance: ``POST /containers/{id}/exec``."""
    body = await request.document(ExecCreate)
    if not body.cmd:  # as in Docker, before the container is looked up
        raise InvalidRequest("No exec command specified")
    return response.json({"Id": await request.engine.execs.create(request.name, body)}, 201)


async def start(request: Request) -> Answer:
    """Start an exec instance: ``POST /exec/{id}/start``.

    A detached start answers when the process runs. Otherwise the connection becomes its streams,
    framed unless the start (not the exec) has a terminal.
    """
    body = await request.document(ExecStart)
    execs, exec_id, tty = request.engine.execs, request.name, body.tty
    execs.check(exec_id)

    async def take(descriptor: int | None, early: bytes) -> None:
        await execs.start(exec_id, descriptor, early, body.detach, tty, body.console_size)

    if body.detach:
        await take(None, b"")
        return response.OK
    return HijackResponse(content_type(request, tty), take, error_writer(tty))


async def inspect(request: Request) -> Answer:
    """Inspect an exec instance: ``GET /exec/{id}/json``."""
    return response.json(request.engine.execs.inspect(request.name))


async def resize(request: Request) -> Answer:
    """Resize an exec instance: ``POST /exec/{id}/resize``."""
    height, width = console_size(request.query)
    await request.engine.execs.resize(request.name, height, width)
    return response.OK


ROUTES: Routes = (
    ("POST", "/containers/{id}/exec", create),
    ("POST", "/exec/{id}/start", start),
    ("GET", "/exec/{id}/json", inspect),
    ("POST", "/exec/{id}/resize", resize),
)
