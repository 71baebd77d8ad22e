"""Swarm mode, which this engine does not have: the answers of a node that is not a manager.

Clients use these routes to detect the role of a node, so the answers are Docker's (moby
``daemon/cluster/errors.go``).
"""

from __future__ import annotations

from jaula.api.http.request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.errors import Unavailable, Unsupported

_NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)


async def manager(request: Request) -> Answer:
    """Refuse a request to a swarm manager: ``GET /swarm``."""
    raise Unavailable(_NOT_A_MANAGER)


async def join(request: Request) -> Answer:
    """Refuse to initialize or join a swarm: ``POST /swarm/init``."""
    raise Unsupported("swarm mode is not part of this engine")


async def leave(request: Request) -> Answer:
    """Refuse to leave a swarm: ``POST /swarm/leave``."""
    raise Unavailable("This node is not part of a swarm")


ROUTES: Routes = (
    ("GET", "/swarm", manager),
    ("POST", "/swarm/init", join),
    ("POST", "/swarm/join", join),
    ("POST", "/swarm/leave", leave),
    ("POST", "/swarm/update", manager),
    ("GET", "/swarm/unlockkey", manager),
    ("POST", "/swarm/unlock", leave),
    ("GET", "/nodes/*", manager),
    ("GET", "/services/*", manager),
    ("GET", "/tasks/*", manager),
)
