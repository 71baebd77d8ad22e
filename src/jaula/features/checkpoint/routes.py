"""Checkpoints, clones and rollbacks of containers."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer, Response, StreamResponse
from jaula.api.http.router import Routes
from jaula.errors import InvalidRequest
from jaula.features.checkpoint.authz import checkpoints_api
from jaula.spec.api_documents import CheckpointClone, CheckpointCreate

if TYPE_CHECKING:
    from jaula.features.checkpoint.authz import CheckpointsApi


def _checkpoints(request: Request) -> CheckpointsApi:
    return request.engine.service(checkpoints_api)


async def list_(request: Request) -> Answer:
    """List the checkpoints of a container: ``GET /containers/{id}/checkpoints``."""
    directory = request.query.text("dir")
    return response.json(_checkpoints(request).list(request.name, directory))


async def create(request: Request) -> Answer:
    """Create a checkpoint of a running container: ``POST /containers/{id}/checkpoints``."""
    body = await request.document(CheckpointCreate, required=True)
    await _checkpoints(request).create(request.name, body)
    return Response(201)


async def remove(request: Request) -> Answer:
    """Remove a checkpoint: ``DELETE /containers/{id}/checkpoints/{checkpoint}``."""
    ref, _, name = request.name.partition("/")
    await _checkpoints(request).remove(ref, name, request.query.text("dir"))
    return response.NO_CONTENT


async def rollback(request: Request) -> Answer:
    """Put files and processes of a container back to a checkpoint that holds its files."""
    ref, _, name = request.name.partition("/")
    await request.ignore_body()
    await _checkpoints(request).rollback(ref, name, request.query.text("dir"))
    return response.NO_CONTENT


async def manifest(request: Request) -> Answer:
    """Get the manifest of a checkpoint, whose bytes a client signs."""
    ref, _, name = request.name.partition("/")
    directory = request.query.text("dir")
    data = await _checkpoints(request).manifest(ref, name, directory)
    return Response(200, data, response.JSON)


async def export(request: Request) -> Answer:
    """Export a checkpoint as an archive; ``signature`` is one over its manifest, in base64."""
    ref, _, name = request.name.partition("/")
    try:
        signature = base64.b64decode(request.query.text("signature"), validate=True)
    except ValueError:  # also for characters outside of ASCII
        raise InvalidRequest("the signature is not base64") from None
    request.begin_transfer()
    directory = request.query.text("dir")
    chunks = await _checkpoints(request).export(ref, name, directory, signature)
    return StreamResponse(chunks, response.TAR)


async def import_(request: Request) -> Answer:
    """Import an archive of a checkpoint, and create its container unless it exists.

    With ``name`` or ``network`` it is a new container, as a clone.
    """
    query = request.query
    options = CheckpointClone(name=query.text("name"), network_mode=query.text("network"))
    imported = await _checkpoints(request).import_(request.archive(), options)
    return response.json(
        {
            "Id": imported.container,
            "Checkpoint": imported.checkpoint,
            "Created": imported.created,
            "Warnings": imported.warnings,
        },
        201,
    )


async def clone(request: Request) -> Answer:
    """Create a container that goes on from a checkpoint of another one."""
    ref, _, name = request.name.partition("/")
    body = await request.document(CheckpointClone, required=True)
    created = await _checkpoints(request).clone(ref, name, request.query.text("dir"), body)
    return response.json({"Id": created.id, "Warnings": created.warnings}, 201)


async def inspect(request: Request) -> Answer:
    """Get the facts about a checkpoint, and whether a container can be started from it."""
    ref, _, name = request.name.partition("/")
    directory = request.query.text("dir")
    return response.json(await _checkpoints(request).inspect(ref, name, directory))


ROUTES: Routes = (
    ("GET", "/containers/{id}/checkpoints", list_),
    ("POST", "/containers/{id}/checkpoints", create),
    ("DELETE", "/containers/{id}/checkpoints/{checkpoint}", remove),
    ("GET", "/jaula/containers/{id}/checkpoints/{checkpoint}", inspect),
    ("POST", "/jaula/containers/{id}/rollback/{checkpoint}", rollback),
    ("POST", "/jaula/containers/{id}/clone/{checkpoint}", clone),
    ("GET", "/jaula/containers/{id}/checkpoint-manifest/{checkpoint}", manifest),
    ("GET", "/jaula/containers/{id}/checkpoint-archive/{checkpoint}", export),
    ("POST", "/jaula/checkpoints", import_),
)
