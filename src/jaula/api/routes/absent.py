"""Routes of Docker's that have nothing behind them here: one clear answer each.

``POST /grpc`` and ``/session`` are not among them: a client that gets 'page not found' there falls
back to what does not need BuildKit.
"""

from __future__ import annotations

from jaula.api import reply
from jaula.api.call import Call, Handler
from jaula.api.reply import Answer
from jaula.api.router import Routes
from jaula.errors import Unsupported


def _without(what: str, hint: str | None = None) -> Handler:
    async def refuse(call: Call) -> Answer:
        raise Unsupported(f"{what} is not part of this engine", hint=hint)

    return refuse


async def prune_build_cache(call: Call) -> Answer:
    """There is no build cache, so nothing is in it (``docker system prune`` asks)."""
    return reply.json({"CachesDeleted": None, "SpaceReclaimed": 0})


_build = _without("building images", "build elsewhere and load the archive")

ROUTES: Routes = (
    ("POST", "/build", _build),
    ("POST", "/build/prune", prune_build_cache),
)
