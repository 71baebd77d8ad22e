"""Volumes."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.request import Request
from jaula.api.http.response import Answer
from jaula.api.router import Routes
from jaula.errors import Unavailable
from jaula.spec.api import VolumeCreate

_NAMED_APART_SINCE = (1, 42)


async def list_(call: Request) -> Answer:
    """``GET /volumes``."""
    return response.json(call.engine.volumes.list(call.query.filters()))


async def create(call: Request) -> Answer:
    """``POST /volumes/create``."""
    return response.json(await call.engine.volumes.create(await call.document(VolumeCreate)), 201)


async def inspect(call: Request) -> Answer:
    """``GET /volumes/{name}``."""
    return response.json(call.engine.volumes.inspect(call.name))


async def remove(call: Request) -> Answer:
    """``DELETE /volumes/{name}``."""
    await call.engine.volumes.remove(call.name, force=call.query.flag("force"))
    return response.NO_CONTENT


async def prune(call: Request) -> Answer:
    """``POST /volumes/prune``; older clients mean volumes with a name too."""
    filters = call.query.filters()
    if call.version < _NAMED_APART_SINCE:
        filters["all"] = ["true"]
    return response.json(await call.engine.volumes.prune(filters))


async def update(call: Request) -> Answer:
    """``PUT /volumes/{name}`` is about volumes of a cluster; the text is Docker's."""
    await call.ignore_body()
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


ROUTES: Routes = (
    ("GET", "/volumes", list_),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("GET", "/volumes/{name}", inspect),
    ("PUT", "/volumes/{name}", update),
    ("DELETE", "/volumes/{name}", remove),
)
