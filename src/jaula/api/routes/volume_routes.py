"""Volumes."""

from __future__ import annotations

from datetime import datetime

import msgspec

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.errors import InvalidRequest, Unavailable
from jaula.spec.api_documents import VolumeCreate

_KEEP_NAMED_SINCE = (1, 42)


async def list_(request: Request) -> Answer:
    """List volumes: ``GET /volumes``."""
    return response.long_json(await request.engine.volumes.list(request.query.filters()), 2)


async def create(request: Request) -> Answer:
    """Create a volume: ``POST /volumes/create``.

    ``transaction``, 32 random hexadecimal digits, is for a removal of what this request has
    created. Another request that creates the volume keeps it.
    """
    volume = await request.engine.volumes.create(
        await request.document(VolumeCreate), transaction=request.query.text("transaction")
    )
    return response.json(volume, 201)


async def import_(request: Request) -> Answer:
    """Create a volume with the files of a tar archive: ``POST /jaula/volumes/import``.

    ``name`` is required. ``labels`` is a JSON object, and ``createdAt`` a time of RFC 3339. The
    volume exists when the archive was received completely, or not at all.
    """
    query = request.query
    try:
        labels = msgspec.json.decode(query.text("labels") or "{}", type=dict[str, str])
        if created := query.text("createdAt"):
            datetime.fromisoformat(created)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidRequest(f"invalid labels or createdAt: {error}") from None
    volume = await request.engine.volumes.import_(
        query.text("name"), labels, created, request.archive()
    )
    return response.json(volume, 201)


async def inspect(request: Request) -> Answer:
    """Inspect a volume: ``GET /volumes/{name}``."""
    return response.json(request.engine.volumes.inspect(request.name))


async def remove(request: Request) -> Answer:
    """Remove a volume: ``DELETE /volumes/{name}``.

    With ``transaction``, only if it was created by the creation of the container with that id, or
    by a request with that word. With ``id``, only the volume with that ``Id``.
    """
    await request.engine.volumes.remove(
        request.name,
        force=request.query.flag("force"),
        transaction=request.query.text("transaction") or None,
        id=request.query.text("id") or None,
    )
    return response.NO_CONTENT


async def prune(request: Request) -> Answer:
    """Delete unused volumes: ``POST /volumes/prune``; with older versions also named ones."""
    filters = request.query.filters()
    if request.version < _KEEP_NAMED_SINCE:
        filters["all"] = ["true"]
    return response.json(await request.engine.volumes.prune(filters))


async def update(request: Request) -> Answer:
    """Refuse ``PUT /volumes/{name}``, which is for cluster volumes; the text is Docker's."""
    await request.ignore_body()
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


ROUTES: Routes = (
    ("GET", "/volumes", list_),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("POST", "/jaula/volumes/import", import_),
    ("GET", "/volumes/{name}", inspect),
    ("PUT", "/volumes/{name}", update),
    ("DELETE", "/volumes/{name}", remove),
)
