"""The address of ``--metrics-addr``: ``/metrics`` and nothing else, without authorization.

It is dockerd's setting. Prometheus scrapes it over TCP, where the kernel names no user. So the
address is a loopback one unless the operator names another.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from jaula.api.http.server import Server
from jaula.features.metrics.routes import ROUTES

if TYPE_CHECKING:
    from jaula.engine.engine import Engine
    from jaula.spec.api_params import Origin

MAX_CONNECTIONS = 32  # a few servers of Prometheus


class _Access:
    """Every client, which may read the metrics."""

    caller = "metrics"
    is_root = False
    is_allowed = True

    def require_access(self, request: str) -> None:
        """Allow every request: the routes decide what there is."""

    def require_body(self, request: str) -> None:
        """Allow a body, which no route reads."""


class MetricsApi:
    """The part of :class:`jaula.api.backend.Backend` that the routes of metrics use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.access = _Access()

    @property
    def system(self) -> MetricsApi:
        """The service that the route asks."""
        return self

    async def metrics(self, format: str, *, compressed: bool) -> bytes:
        """Return a page."""
        return await self._engine.metrics.page(format, compressed=compressed)

    async def sync(self) -> None:
        """Do nothing: a page reports no change of records."""


async def serve(engine: Engine, sock: socket.socket) -> Server:
    """Serve the metrics on a bound TCP socket until the server is closed."""

    def enter(origin: Origin | None) -> Any:
        return MetricsApi(engine)

    server = Server(enter, max_connections=MAX_CONNECTIONS, root_connections=0, routes=ROUTES)
    sock.setblocking(False)
    await server.listen(sock)
    return server
