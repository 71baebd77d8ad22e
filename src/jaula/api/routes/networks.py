"""Networks and the connection of containers to them."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.request import Request
from jaula.api.http.response import Answer
from jaula.api.router import Routes
from jaula.spec.api_networks import NetworkConnect, NetworkCreate, NetworkDisconnect


async def list_(call: Request) -> Answer:
    """``GET /networks``."""
    return response.json(call.engine.networks.list(call.query.filters()))


async def create(call: Request) -> Answer:
    """``POST /networks/create``."""
    body = await call.document(NetworkCreate, required=True)
    return response.json(await call.engine.networks.create(body), 201)


async def inspect(call: Request) -> Answer:
    """``GET /networks/{id}``."""
    return response.json(call.engine.networks.inspect(call.name))


async def remove(call: Request) -> Answer:
    """``DELETE /networks/{id}``."""
    await call.engine.networks.remove(call.name)
    return response.NO_CONTENT


async def connect(call: Request) -> Answer:
    """``POST /networks/{id}/connect``."""
    body = await call.document(NetworkConnect, required=True)
    await call.engine.networks.connect(call.name, body)
    return response.OK


async def disconnect(call: Request) -> Answer:
    """``POST /networks/{id}/disconnect``."""
    body = await call.document(NetworkDisconnect, required=True)
    await call.engine.networks.disconnect(call.name, body)
    return response.OK


async def prune(call: Request) -> Answer:
    """``POST /networks/prune``."""
    return response.json(await call.engine.networks.prune(call.query.filters()))


ROUTES: Routes = (
    ("GET", "/networks", list_),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id}", inspect),
    ("DELETE", "/networks/{id}", remove),
    ("POST", "/networks/{id}/connect", connect),
    ("POST", "/networks/{id}/disconnect", disconnect),
)
