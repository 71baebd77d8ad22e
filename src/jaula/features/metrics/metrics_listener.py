"""The address of ``--metrics-addr``: ``/metrics`` and nothing else, without authorization.

It is dockerd's setting. Prometheus scrapes it over TCP, where the kernel names no user. So the
address is a loopback one unless the operator names another.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import TYPE_CHECKING, Any

from jaula.api.http.api_server import Server
from jaula.daemon import sockets
from jaula.features.metrics.engine_metrics import Metrics
from jaula.features.metrics.hooks import engine_metrics
from jaula.features.metrics.routes import ROUTES

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.engine.engine import Engine
    from jaula.engine.hooks import EngineStart
    from jaula.spec.api_params import Origin

_log = logging.getLogger("jaula.engine")
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


class OpenApi:
    """The part of :class:`jaula.api.backend.Backend` that the routes of metrics use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.access = _Access()

    def service(self, make: object) -> Metrics:
        """Return the metrics, without authorization: no route asks for another service."""
        return self._engine.service(engine_metrics)

    async def sync(self) -> None:
        """Do nothing: a page reports no change of records."""


def listen(config: EngineConfig) -> tuple[str, socket.socket]:
    """Open the socket of ``--metrics-addr``.

    :raises Unavailable: when it cannot be opened.
    """
    assert config.metrics is not None
    return "metrics", sockets.listen_addresses((config.metrics,))[0]


async def start(start: EngineStart) -> Server:
    """Serve the metrics of an engine until the server is closed."""
    engine, sock = start.engine, start.opened["metrics"]

    def enter(origin: Origin | None) -> Any:
        return OpenApi(engine)

    server = Server(enter, max_connections=MAX_CONNECTIONS, root_connections=0, routes=ROUTES)
    sock.setblocking(False)
    await server.listen(sock)
    host, port = sock.getsockname()[:2]
    if not ipaddress.ip_address(host).is_loopback:
        _log.warning("names and usage of all containers can be read at %s without a login", host)
    _log.info("metrics are at http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)
    return server
