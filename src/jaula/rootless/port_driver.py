"""Ports of the host for an engine whose network namespace is another: the keeper takes them.

A :class:`jaula.network.ports.port.Binder`. What the keeper holds stays when the engine ends or is
killed, so that published ports serve on; the next engine says which of them are still wanted.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable

import msgspec

from jaula.errors import Unavailable
from jaula.rootless import port_protocol
from jaula.rootless.port_protocol import Bind, Forward, Release, ReleaseOthers
from jaula.rootless.state import CONTROL_SOCKET, HOLDER_DIR
from jaula.runtime.seqpacket import SocketDir
from jaula.spec.endpoint import PublishedPort

ANSWER_TIMEOUT = 10.0  # seconds for an answer


class PortLease:
    """One port at the keeper's."""

    def __init__(self, porter: PortDriver, forward: Forward) -> None:
        self._porter = porter
        self._forward = forward

    def close(self) -> None:
        """Give it back, with its connections."""
        self._porter.ask(Release(self._forward))


class PortDriver:
    """Asks the keeper of the engine that runs in directory ``run``. Any thread may call."""

    persistent = True
    proxied = True

    def __init__(self, run: str) -> None:
        self._directory = f"{run}/{HOLDER_DIR}"
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def bind(self, port: PublishedPort, target: str) -> PortLease | None:
        """Let the keeper bind a port and send on what arrives. Raises ``OSError``."""
        if port.protocol not in ("tcp", "udp"):
            return None
        forward = forward_for(port, target)
        self.ask(Bind(forward))
        return PortLease(self, forward)

    def release_others(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Let the keeper give back every other port."""
        self.ask(ReleaseOthers(tuple(forward_for(port, target) for port, target in ports)))

    def ask(self, request: port_protocol.Request) -> None:
        """Send one request. Raises ``OSError`` as bind(2), ``Unavailable`` without a keeper."""
        with self._lock:
            try:
                answer = self._exchange(request)
            except (OSError, msgspec.MsgspecError) as error:
                self._close()
                raise Unavailable(
                    f"the keeper of this engine's ports does not answer: {error}",
                    hint="stop every container and the engine, and start it again",
                ) from error
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))

    def _exchange(self, request: port_protocol.Request) -> port_protocol.Answer:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.settimeout(ANSWER_TIMEOUT)
            with SocketDir(self._directory) as place:
                self._socket.connect(f"{place}/{CONTROL_SOCKET}")
        self._socket.send(port_protocol.encode(request), socket.MSG_NOSIGNAL)
        return port_protocol.decode_answer(self._socket.recv(4096))

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def forward_for(port: PublishedPort, target: str) -> Forward:
    """What the keeper is to do for a published port. Pure."""
    return Forward(port.protocol, port.host_ip, port.host_port, target, port.container_port)
