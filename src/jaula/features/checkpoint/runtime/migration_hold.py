"""The hold of a migration: a container that is stopped, with everything saved, waits for an engine.

The source of a migration holds its container after the dump, the target its restored processes
before they run. Both ask the engine over a socket, and the answers decide where the container runs.

The source's hold outlives its engine, and CRIU: the cgroup is frozen. If the engine ends, the next
one connects to ``hold.sock`` in the run directory: its record says whether the container was given
away. The target's hold ends with its engine: without the commit the processes are killed.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import socket

import msgspec

from jaula.errors import RuntimeFailure
from jaula.kernel.namespaces import open_namespace
from jaula.runtime import seqpacket
from jaula.runtime.shim.engine_connections import UCRED
from jaula.runtime.shim_protocol import (
    COMMIT,
    EARLY,
    HELD,
    HELD_NAMESPACES,
    HOLD_SOCKET,
    IMAGES,
    RestoredImages,
)

_BACKLOG = 8  # connections of engines
_CANCELLED = "the migration was cancelled before the container was continued"


class Hold:
    """The hold of a dump. The caller has frozen the container; ``run_dir`` is its run directory."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir

    def wait(self, engine: _socket.socket, report: bytes) -> bytes:
        """Send the report to the engine, and return the decision, also if it is a later engine's.

        :raises OSError: when the engine has ended before the report: no decision exists.
        """
        listener = self._listen()
        try:
            seqpacket.send(engine, report)
            answer = self._receive(engine)
            while not answer:
                with _accept(listener) as next_engine:
                    answer = self._receive(next_engine)
        finally:
            listener.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._run_dir}/{HOLD_SOCKET}")
        return answer

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with seqpacket.SocketDir(self._run_dir) as directory:
            path = f"{directory}/{HOLD_SOCKET}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
        return listener

    def _receive(self, engine: _socket.socket) -> bytes:
        try:
            return seqpacket.receive(engine)[0]
        except OSError:
            return b""


def _accept(listener: socket.socket) -> socket.socket:
    """Return the connection of the next engine: a process of this one's user."""
    while True:
        sock, _ = listener.accept()
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        if UCRED.unpack(peer)[1] == os.getuid():
            return sock
        sock.close()


def receive_images(engine: _socket.socket) -> RestoredImages:
    """Wait until the images of an early restore are complete.

    :raises RuntimeFailure: when the engine refuses or ends.
    """
    message = _receive(engine)
    if not message.startswith(IMAGES):
        raise RuntimeFailure(_CANCELLED)
    return _decode(message.removeprefix(IMAGES))


_decode = msgspec.json.Decoder(RestoredImages).decode


def send_early(engine: _socket.socket) -> None:
    """Report to the engine that the restore waits for the images.

    :raises RuntimeFailure: when the engine has ended.
    """
    try:
        seqpacket.send(engine, EARLY)
    except OSError as error:
        raise RuntimeFailure(_CANCELLED) from error


def send_held(engine: _socket.socket, init: int) -> None:
    """Report to the engine that the restored processes are verified.

    The message has the pid of the first one, and its namespaces in the order of
    :data:`jaula.runtime.shim_protocol.HELD_NAMESPACES`.

    :raises RuntimeFailure: when the engine has ended.
    """
    fds = []
    try:
        for kind in HELD_NAMESPACES.values():
            fds.append(open_namespace(init, kind))
        seqpacket.send(engine, HELD + b" %d" % init, fds)
    except OSError as error:
        raise RuntimeFailure(_CANCELLED) from error
    finally:
        for fd in fds:
            os.close(fd)


def receive_go(engine: _socket.socket) -> None:
    """Wait for the commit to continue the restored processes.

    :raises RuntimeFailure: when the engine refuses or ends.
    """
    if _receive(engine) != COMMIT:
        raise RuntimeFailure(_CANCELLED)


def _receive(engine: _socket.socket) -> bytes:
    """Return the engine's next message; nothing if it has ended."""
    try:
        return seqpacket.receive(engine)[0]
    except OSError:
        return b""
