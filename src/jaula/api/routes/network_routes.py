"""Networks, and the connections of containers to them."""

from __future__ import annotations

from jaula.api import compat
from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.spec.api_networks import NetworkConnect, NetworkCreate, NetworkDisconnect


async def list_(request: Request) -> Answer:
    """List networks: ``GET /networks``."""
    return response.long_json(
        compat.networks(request.engine.networks.list(request.query.filters()), request.version)
    )


async def create(request: Request) -> Answer:
    """Create a network: ``POST /networks/create``."""
    body = compat.network_create(await request.document(NetworkCreate), request.version)
    return response.json(await request.engine.networks.create(body), 201)


async def inspect(request: Request) -> Answer:
    """Inspect a network: ``GET /networks/{id}``."""
    return response.json(
        compat.network(request.engine.networks.inspect(request.name), request.version)
    )


async def remove(request: Request) -> Answer:
    """Remove a network: ``DELETE /networks/{id}``."""
    await request.engine.networks.remove(request.name)
    return response.NO_CONTENT


async def connect(request: Request) -> Answer:
    """Connect a container to a network: ``POST /networks/{id}/connect``."""
    body = await request.document(NetworkConnect)
    await request.engine.networks.connect(request.name, body)
    return response.OK


async def disconnect(request: Request) -> Answer:
    """Disconnect a container from a network: ``POST /networks/{id}/disconnect``."""
    body = await request.document(NetworkDisconnect)
    await request.engine.networks.disconnect(request.name, body)
    return response.OK


async def prune(request: Request) -> Answer:
    """Delete unused networks: ``POST /networks/prune``."""
    return response.json(await request.engine.networks.prune(request.query.filters()))


ROUTES: Routes = (
    ("GET", "/networks", list_),
    ("GET", "/networks/", list_),
    ("POST", "/networks/create", create),
    ("POST", "/networks/prune", prune),
    ("GET", "/networks/{id...}", inspect),
    ("DELETE", "/networks/{id...}", remove),
    ("POST", "/networks/{id...}/connect", connect),
    ("POST", "/networks/{id...}/disconnect", disconnect),
)
