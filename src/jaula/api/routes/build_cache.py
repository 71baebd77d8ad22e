"""The build cache of an engine without builds, which is empty."""

from __future__ import annotations

from jaula.api.http import response
from jaula.api.http.http_request import Request
from jaula.api.http.response import Answer
from jaula.api.http.router import Routes


async def prune(request: Request) -> Answer:
    """Delete builder cache: ``POST /build/prune``, as a client does for ``system prune``."""
    await request.ignore_body()
    request.engine.access.require_body("POST /build/prune")
    return response.json({"CachesDeleted": None, "SpaceReclaimed": 0})


ROUTES: Routes = (("POST", "/build/prune", prune),)
