"""The sockets of CRI, and its server for one engine."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from jaula import tls
from jaula.daemon import sockets as daemon_sockets

if TYPE_CHECKING:
    from pathlib import Path
    from ssl import SSLContext

    from jaula.config import EngineConfig, StreamConfig
    from jaula.engine.hooks import EngineStart
    from jaula.features.kubernetes.cri.cri_server import Server

NAME = "cri"


class CriSockets:
    """The unix socket of the services, and the TCP socket of the streams with its TLS context."""

    def __init__(
        self, path: Path, services: socket.socket, streams: socket.socket, tls: SSLContext | None
    ) -> None:
        self.path = path
        self.services = services
        self.streams = streams
        self.tls = tls

    def close(self) -> None:
        """Close the unix socket and remove its path; the server closes the other one."""
        daemon_sockets.remove(self.path, [self.services])


def listen(config: EngineConfig) -> tuple[str, CriSockets]:
    """Open the sockets of CRI.

    :raises Conflict: when another engine listens on the unix socket.
    :raises InvalidRequest: when a file of TLS is missing or invalid.
    :raises Unavailable: when a socket cannot be opened.
    """
    context, path = _context(config.streams), config.paths.cri_socket
    services = daemon_sockets.listen_unix(path, config.cri_socket_group)
    try:
        address = config.streams.address, config.streams.port
        (streams,) = daemon_sockets.listen_addresses([address])
    except BaseException:
        daemon_sockets.remove(path, [services])
        raise
    return NAME, CriSockets(path, services, streams, context)


def _context(streams: StreamConfig) -> SSLContext | None:
    """Return the TLS context of the streams of pods.

    :raises InvalidRequest: when a file is missing or invalid.
    """
    if not streams.certificate:
        return None
    return tls.server_context(tls.TlsFiles("", streams.certificate, streams.key))


async def start(start: EngineStart) -> Server:
    """Serve CRI. The server and protobuf are loaded here only."""
    from jaula.features.kubernetes.cri.cri_server import Server
    from jaula.features.kubernetes.cri.streaming.streaming_server import StreamServer
    from jaula.features.kubernetes.cri.streaming.streaming_transport import Timeouts

    config, sockets = start.engine.services.config, start.opened[NAME]
    sockets.services.setblocking(False)
    idle = float(config.streams.idle_timeout)
    stream_server = StreamServer(tls=sockets.tls, timeouts=Timeouts(idle=idle))
    stream_server.listen(sockets.streams)
    logging.getLogger("jaula.engine").info(
        "engine serves CRI on %s, streams on %s port %d",
        sockets.services.getsockname(),
        *sockets.streams.getsockname()[:2],
    )
    server, path = Server(sockets.services, start.enter, stream_server), str(sockets.path)

    def listen_again() -> None:
        server.replace(daemon_sockets.listen_again(path, config.cri_socket_group))

    start.listen_again[path] = listen_again
    return server
