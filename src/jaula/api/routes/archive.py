"""Files in and out of a container: ``docker cp``."""

from __future__ import annotations

from base64 import b64encode

import msgspec

from jaula.api.http import response
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, Response, StreamResponse
from jaula.api.router import Routes


def _header(described: msgspec.Struct) -> tuple[bytes, bytes]:
    """What is at the path, beside the answer."""
    document = response.encode(described).rstrip(b"\n")
    return (b"X-Docker-Container-Path-Stat", b64encode(document))


async def stat(call: Request) -> Answer:
    """``HEAD /containers/{id}/archive``."""
    described = await call.engine.containers.path_stat(call.name, call.query.text("path"))
    return Response(200, headers=(_header(described),))


async def get(call: Request) -> Answer:
    """``GET /containers/{id}/archive``."""
    path = call.query.text("path")
    described, chunks = await call.engine.containers.copy_out(call.name, path)
    return StreamResponse(chunks, response.TAR, headers=(_header(described),))


async def put(call: Request) -> Answer:
    """``PUT /containers/{id}/archive``."""
    query = call.query
    await call.engine.containers.copy_in(
        call.name,
        query.text("path"),
        call.body(),
        keep_kinds=query.flag("noOverwriteDirNonDir"),
        as_user=query.flag("copyUIDGID"),
    )
    return response.OK


ROUTES: Routes = (
    ("HEAD", "/containers/{id}/archive", stat),
    ("GET", "/containers/{id}/archive", get),
    ("PUT", "/containers/{id}/archive", put),
)
