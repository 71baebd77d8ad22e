"""Debug sessions of containers and images."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, StreamResponse, json_lines
from jaula.api.http.router import Routes
from jaula.features.debug.authz import debug_api
from jaula.spec.api_documents import DebugCreate


async def create(request: Request) -> Answer:
    """Create a debug session: ``POST /jaula/containers/{id}/debug``. It is started as an exec."""
    body = await request.document(DebugCreate)
    return response.json(
        {"Id": await request.engine.service(debug_api).create(request.name, body)}, 201
    )


async def create_copy(request: Request) -> Answer:
    """Create the container of a debug session: ``POST /jaula/debug-copies?from=NAME``.

    It has a copy of the files of a container that does not run, or of an image. The answer is its
    id. The engine removes the container when the client closes the connection.
    """
    body = await request.document(DebugCreate)
    name = request.query.text("from")
    return StreamResponse(json_lines(request.engine.service(debug_api).create_copy(name, body)))


async def list_(request: Request) -> Answer:
    """List debug sessions, also recent ones: ``GET /jaula/containers/{id}/debug``."""
    return response.json(request.engine.service(debug_api).list(request.name))


ROUTES: Routes = (
    ("POST", "/jaula/containers/{id}/debug", create),
    ("GET", "/jaula/containers/{id}/debug", list_),
    ("POST", "/jaula/debug-copies", create_copy),
)
