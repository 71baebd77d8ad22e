"""The engine's socket in a container: a listening unix socket for that container alone.

Every connection to it comes from the container, whatever process connects. So the caller is the
container (:class:`~jaula.spec.api_params.ContainerPeer`), and its right is an entry of the policy.

The socket is bound in the container's run directory before each start, and the file is mounted in
the container. The container's user and its root's group own it, with mode 0660. The shim holds the
socket too. A client that connects while no engine runs waits for the next engine, which gets the
socket from the shim: binding again would make another file than the one that is mounted. The socket
ends with the container.

SELinux checks the label of the listening socket at each connect. It has the label of the container.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from jaula.runtime import seqpacket
from jaula.spec.api_params import ContainerPeer
from jaula.state.container_records import ENGINE_SOCKET, MountRecord

if TYPE_CHECKING:
    from jaula.config import Paths
    from jaula.state.container_records import ContainerRecord

log = logging.getLogger("jaula.containers")

FILE_NAME = "engine.sock"
"""Name of the socket in the run directory of a container."""
_BACKLOG = 512  # connections that wait, while no engine runs as well
_MODE = 0o660


def path(paths: Paths, container_id: str) -> str:
    """Return the path of a container's socket on the host."""
    return str(paths.container_run(container_id) / FILE_NAME)


class Listener(Protocol):
    """A socket that the API server serves."""

    def close(self) -> None:
        """Stop accepting, close the socket, and end the connections that came from it."""


Listen = Callable[[socket.socket, ContainerPeer], Listener]
"""Serves the API on a listening socket, which the listener owns, for one container."""


class EngineSockets:
    """The engine sockets of all running containers.

    ``paths`` are those of the engine's own unix sockets.
    """

    def __init__(self) -> None:
        self.paths: tuple[str, ...] = ()
        self._sockets: dict[str, tuple[socket.socket, ContainerPeer]] = {}  # by container id
        self._listeners: dict[str, Listener] = {}
        self._listen: Listen | None = None

    def is_engine_socket(self, path: str) -> bool:
        """Return whether a path of the host is the engine's own socket, or a link to it."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return False
        for own in self.paths:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(found, os.stat(own)):
                    return True
        return False

    def serve(self, listen: Listen) -> None:
        """Serve all sockets by ``listen`` from now on. Until then clients wait."""
        self._listen = listen
        for container_id, (sock, peer) in self._sockets.items():
            self._listeners[container_id] = listen(sock, peer)

    def open(
        self, record: ContainerRecord, run_dir: str, owner: tuple[int, int], label: str
    ) -> None:
        """Bind the socket of a container that is being started, if its request has the mount.

        ``owner`` are the ids on the host, ``label`` is the SELinux label of its processes, or ''.

        :raises OSError: when the socket cannot be bound.
        """
        if not any(mount.type == ENGINE_SOCKET for mount in record.mounts):
            return
        self.close(record.id)
        with _socket_label(label):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with seqpacket.SocketDir(run_dir) as directory:
                name = f"{directory}/{FILE_NAME}"
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
                sock.bind(name)
                os.chown(name, *owner)
                os.chmod(name, _MODE)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        self.adopt(record, sock)

    def adopt(self, record: ContainerRecord, sock: socket.socket) -> None:
        """Serve the listening socket of a container, which the shim has held."""
        self.close(record.id)
        sock.setblocking(False)
        peer = ContainerPeer(record.id, record.engine_socket)
        self._sockets[record.id] = sock, peer
        if self._listen is not None:
            self._listeners[record.id] = self._listen(sock, peer)

    def descriptor(self, container_id: str) -> int:
        """Return the descriptor of a container's socket, which the shim is to hold, or -1."""
        entry = self._sockets.get(container_id)
        return -1 if entry is None else entry[0].fileno()

    def close(self, container_id: str) -> None:
        """Close the socket of a container that has ended, and end its connections."""
        entry = self._sockets.pop(container_id, None)
        listener = self._listeners.pop(container_id, None)
        if listener is not None:
            listener.close()
        elif entry is not None:
            entry[0].close()

    def close_all(self) -> None:
        """Close the sockets of this engine; the shims keep theirs."""
        for container_id in tuple(self._sockets):
            self.close(container_id)


def bind_mounts(mounts: Iterable[MountRecord], source: str) -> tuple[MountRecord, ...]:
    """Return the mounts of a start: an engine socket is a bind mount of the container's file.

    The owner of the file is an id of the container already, so it needs no id map.
    """
    return tuple(
        msgspec.structs.replace(mount, type="bind", source=source, mapped=True)
        if mount.type == ENGINE_SOCKET
        else mount
        for mount in mounts
    )


@contextlib.contextmanager
def _socket_label(label: str) -> Iterator[None]:
    """Give sockets of this thread an SELinux label (proc_pid_attr(5), sockcreate)."""
    if not label:
        yield
        return
    _write_socket_label(label)
    try:
        yield
    finally:
        _write_socket_label("")


def _write_socket_label(label: str) -> None:
    with open("/proc/thread-self/attr/sockcreate", "wb", buffering=0) as file:
        file.write(label.encode() + b"\0" if label else b"\n")
