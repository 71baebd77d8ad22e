"""Swarm mode, which this engine does not have: the answers of a node that is not a manager.

Clients use these routes to detect the role of a node, so statuses and the first sentence are
Docker's (moby ``daemon/cluster/errors.go``). Docker's next sentence sends the user to ``swarm
init``, which would be refused too.
"""

from __future__ import annotations

from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes
from jaula.errors import Unavailable, Unsupported

_INSTEAD = "use docker compose on one host, or Kubernetes on several"
_NOT_A_MANAGER = "This node is not a swarm manager. This engine has no swarm mode"


async def manager(request: Request) -> Answer:
    """Refuse a request to a swarm manager: ``GET /swarm``."""
    await request.ignore_body()
    raise Unavailable(_NOT_A_MANAGER, hint=_INSTEAD)


async def join(request: Request) -> Answer:
    """Refuse to initialize or join a swarm: ``POST /swarm/init``."""
    await request.ignore_body()
    raise Unsupported("this engine has no swarm mode", hint=_INSTEAD)


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
