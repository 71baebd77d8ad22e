"""The port driver of a rootless engine: the namespace holder binds its published ports.

Implements :class:`jaula.network.port_mapper.PortBinder`. The holder keeps ports bound when the
engine exits or is killed, so published ports stay reachable. The next engine releases those that
are no longer used.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable

import msgspec

from jaula.errors import Unavailable
from jaula.rootless import port_protocol
from jaula.rootless.holder_state import CONTROL_SOCKET, HOLDER_DIR
from jaula.rootless.port_protocol import Bind, Forward, Release, ReleaseOthers, RestoreFiles
from jaula.runtime.seqpacket import SocketDir
from jaula.spec.endpoint_record import PublishedPort

ANSWER_TIMEOUT = 10.0  # seconds


class PortLease:
    """One port that the holder has bound."""

    def __init__(self, driver: PortDriver, forward: Forward) -> None:
        self._driver = driver
        self._forward = forward

    def close(self) -> None:
        """Release the port and close its connections."""
        self._driver.send(Release(self._forward))


class PortDriver:
    """Sends requests to the holder of the engine with the directory ``run``. Thread safe."""

    persistent = True
    proxied = True

    def __init__(self, run: str) -> None:
        self._directory = f"{run}/{HOLDER_DIR}"
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def bind(self, port: PublishedPort, target: str) -> PortLease | None:
        """Let the holder bind a port and forward its traffic.

        :raises OSError: when the port is not available.
        """
        if port.protocol not in ("tcp", "udp"):
            return None
        forward = forward_for(port, target)
        self.send(Bind(forward))
        return PortLease(self, forward)

    def release_others(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Let the holder release all other ports."""
        self.send(ReleaseOthers(tuple(forward_for(port, target) for port, target in ports)))

    def restore_files(self) -> None:
        """Let the holder make its files again, in a directory that another program removed.

        :raises OSError: when it cannot.
        :raises Unavailable: when the holder does not respond.
        """
        self.send(RestoreFiles())

    def send(self, request: port_protocol.Request) -> None:
        """Send one request and wait for the answer.

        :raises OSError: as bind(2).
        :raises Unavailable: when the holder does not respond.
        """
        with self._lock:
            try:
                answer = self._exchange(request)
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._close()
                raise Unavailable(
                    f"the namespace holder of this engine does not respond: {error}",
                    hint="stop every container and the engine, and start it again",
                ) from error
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))

    def _exchange(self, request: port_protocol.Request) -> port_protocol.Answer:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.settimeout(ANSWER_TIMEOUT)
            with SocketDir(self._directory) as path:
                self._socket.connect(f"{path}/{CONTROL_SOCKET}")
        self._socket.send(port_protocol.encode(request), socket.MSG_NOSIGNAL)
        return port_protocol.decode_answer(self._socket.recv(4096))

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def forward_for(port: PublishedPort, target: str) -> Forward:
    """Return the forward of a published port. Pure."""
    return Forward(port.protocol, port.host_ip, port.host_port, target, port.container_port)
