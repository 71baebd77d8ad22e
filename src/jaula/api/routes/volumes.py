"""Volumes."""

from __future__ import annotations

from jaula.api import reply
from jaula.api.call import Call
from jaula.api.reply import Answer
from jaula.api.router import Routes
from jaula.errors import Unavailable
from jaula.spec.api import VolumeCreate

_NAMED_APART_SINCE = (1, 42)


async def list_(call: Call) -> Answer:
    """``GET /volumes``."""
    return reply.json(call.engine.volumes.list(call.query.filters()))


async def create(call: Call) -> Answer:
    """``POST /volumes/create``."""
    return reply.json(await call.engine.volumes.create(await call.document(VolumeCreate)), 201)


async def inspect(call: Call) -> Answer:
    """``GET /volumes/{name}``."""
    return reply.json(call.engine.volumes.inspect(call.name))


async def remove(call: Call) -> Answer:
    """``DELETE /volumes/{name}``."""
    await call.engine.volumes.remove(call.name, force=call.query.flag("force"))
    return reply.NO_CONTENT


async def prune(call: Call) -> Answer:
    """``POST /volumes/prune``; older clients mean volumes with a name too."""
    filters = call.query.filters()
    if call.version < _NAMED_APART_SINCE:
        filters["all"] = ["true"]
    return reply.json(await call.engine.volumes.prune(filters))


async def update(call: Call) -> Answer:
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
