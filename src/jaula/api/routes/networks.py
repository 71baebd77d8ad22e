"""Networks and the connection of containers to them."""

from __future__ import annotations

from jaula.api import reply
from jaula.api.call import Call
from jaula.api.reply import Answer
from jaula.api.router import Routes
from jaula.spec.api_networks import NetworkConnect, NetworkCreate, NetworkDisconnect


async def list_(call: Call) -> Answer:
    """``GET /networks``."""
    return reply.json(call.engine.networks.list(call.query.filters()))


async def create(call: Call) -> Answer:
    """``POST /networks/create``."""
    body = await call.document(NetworkCreate, required=True)
    return reply.json(await call.engine.networks.create(body), 201)


async def inspect(call: Call) -> Answer:
    """``GET /networks/{id}``."""
    return reply.json(call.engine.networks.inspect(call.name))


async def remove(call: Call) -> Answer:
    """``DELETE /networks/{id}``."""
    await call.engine.networks.remove(call.name)
    return reply.NO_CONTENT


async def connect(call: Call) -> Answer:
    """``POST /networks/{id}/connect``."""
    body = await call.document(NetworkConnect, required=True)
    await call.engine.networks.connect(call.name, body)
    return reply.OK


async def disconnect(call: Call) -> Answer:
    """``POST /networks/{id}/disconnect``."""
    body = await call.document(NetworkDisconnect, required=True)
    await call.engine.networks.disconnect(call.name, body)
    return reply.OK


async def prune(call: Call) -> Answer:
    """``POST /networks/prune``."""
    return reply.json(await call.engine.networks.prune(call.query.filters()))


ROUTES: Routes = (
    ("GET", "/networks", list_),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id}", inspect),
    ("DELETE", "/networks/{id}", remove),
    ("POST", "/networks/{id}/connect", connect),
    ("POST", "/networks/{id}/disconnect", disconnect),
)
