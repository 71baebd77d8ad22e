"""Volumes."""

from __future__ import annotations

from jaula.api import reply
from jaula.api.call import Call
from jaula.api.reply import Answer
from jaula.api.router import Routes
from jaula.spec.api import VolumeCreate


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
    """``POST /volumes/prune``."""
    return reply.json(await call.engine.volumes.prune(call.query.filters()))


ROUTES: Routes = (
    ("GET", "/volumes", list_),
    ("POST", "/volumes/create", create),
    ("POST", "/volumes/prune", prune),
    ("GET", "/volumes/{name}", inspect),
    ("DELETE", "/volumes/{name}", remove),
)
