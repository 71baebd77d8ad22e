"""Copying files into and out of a container: ``docker cp``."""

from __future__ import annotations

from base64 import b64encode

import msgspec

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, Response, StreamResponse
from jaula.api.http.router import Routes


def _header(file_stat: msgspec.Struct) -> tuple[bytes, bytes]:
    """Return the header that describes the file at the path."""
    document = response.encode(file_stat).rstrip(b"\n")
    return (b"X-Docker-Container-Path-Stat", b64encode(document))


async def stat(request: Request) -> Answer:
    """Get information about files in a container: ``HEAD /containers/{id}/archive``."""
    file_stat = await request.engine.containers.path_stat(request.name, request.query.text("path"))
    return Response(200, headers=(_header(file_stat),))


async def list_directory(request: Request) -> Answer:
    """List a directory in a container: ``GET /jaula/containers/{id}/files``."""
    path = request.query.text("path")
    return response.json(await request.engine.containers.list_directory(request.name, path))


async def get(request: Request) -> Answer:
    """Get an archive of a filesystem resource in a container: ``GET /containers/{id}/archive``."""
    path = request.query.text("path")
    request.begin_transfer()
    file_stat, chunks = await request.engine.containers.copy_out(request.name, path)
    return StreamResponse(chunks, response.TAR, headers=(_header(file_stat),))


async def put(request: Request) -> Answer:
    """Extract an archive to a directory in a container: ``PUT /containers/{id}/archive``."""
    query = request.query
    await request.engine.containers.copy_in(
        request.name,
        query.text("path"),
        request.archive(),
        keep_kinds=query.flag("noOverwriteDirNonDir"),
        as_user=query.flag("copyUIDGID"),
    )
    return response.OK


async def import_(request: Request) -> Answer:
    """Complete a container that never ran: ``POST /jaula/containers/{id}/import``.

    The body is the tar of a layer, whose files replace the container's changes; an empty body has
    none. Then the container gets ``name``, and ``created``, a time in seconds since 1970 with
    decimals, as the time of its creation.
    """
    query = request.query
    await request.engine.containers.import_(
        request.name, query.text("name"), query.nanoseconds("created"), request.archive()
    )
    return response.NO_CONTENT


ROUTES: Routes = (
    ("HEAD", "/containers/{id}/archive", stat),
    ("GET", "/containers/{id}/archive", get),
    ("PUT", "/containers/{id}/archive", put),
    ("POST", "/jaula/containers/{id}/import", import_),
    ("GET", "/jaula/containers/{id}/files", list_directory),
)
