"""Connections of a shim to engines: the one that started it, and later ones.

A later engine connects to ``shim.sock`` in the container's run directory. Only the shim's own user
gets an answer. The shim drops an engine that disconnects or does not read; ``exit.json`` holds what
that engine must know about the container's exit.

If the run directory was removed while no engine ran, the next engine makes it again and sends the
shim SIGHUP: the shim listens on a new socket then.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Sequence

import msgspec

from jaula.errors import JaulaError, RuntimeFailure
from jaula.runtime import seqpacket, shim_protocol
from jaula.runtime.shim.event_loop import EventLoop
from jaula.runtime.shim_protocol import SOCKET_NAME, Answer, HelloRequest, ShimRequest

_BACKLOG = 128  # connections, of engines that gave up among them, while the shim is stopped
UCRED = struct.Struct("iII")  # pid, uid, gid: unix(7), SO_PEERCRED


class ControlSockets:
    """Connections to engines.

    ``handle`` carries out a request; descriptors that it keeps it removes from the list.
    ``after_reply`` is called after each reply. ``held`` are descriptors that an engine gets with
    the answer to its :class:`~jaula.runtime.shim_protocol.HelloRequest`.
    """

    def __init__(
        self,
        event_loop: EventLoop,
        run_dir: str,
        handle: Callable[[ShimRequest, list[int]], Answer],
        after_reply: Callable[[], None],
        held: Sequence[int] = (),
    ) -> None:
        self._event_loop = event_loop
        self._run_dir = run_dir
        self._handle = handle
        self._after_reply = after_reply
        self._held = held
        self._connections: dict[int, socket.socket] = {}
        self._listener: socket.socket | None = None

    def listen(self) -> None:
        """Listen for later engines.

        :raises OSError: when the socket cannot be bound.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with seqpacket.SocketDir(self._run_dir) as directory:
                path = f"{directory}/{SOCKET_NAME}"
                if os.path.lexists(path):
                    os.unlink(path)
                listener.bind(path)
                os.chmod(path, 0o600)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        self._event_loop.watch(listener.fileno(), select.EPOLLIN, lambda _: self._accept(listener))

    def listen_again(self) -> None:
        """Replace the socket, whose file another program has removed.

        :raises OSError: when it cannot be bound: the present socket stays.
        :raises RuntimeFailure: when the shim listens no more.
        """
        former = self._listener
        if former is None:
            raise RuntimeFailure("the container has exited")
        self.listen()
        self._event_loop.forget(former.fileno())
        former.close()

    def listen_if_removed(self) -> None:
        """Replace the socket if its file was removed; an engine has made the directory again.

        :raises OSError: when it cannot be bound: the present socket stays.
        """
        if self._listener is not None and not os.path.lexists(f"{self._run_dir}/{SOCKET_NAME}"):
            self.listen_again()

    @property
    def connected(self) -> bool:
        """Return whether there is an engine."""
        return bool(self._connections)

    def stop_listening(self) -> None:
        """Stop listening and remove the socket."""
        if self._listener is None:
            return
        self._event_loop.forget(self._listener.fileno())
        self._listener.close()
        self._listener = None
        try:
            os.unlink(f"{self._run_dir}/{SOCKET_NAME}")
        except OSError:
            return  # the directory is removed, or read-only: a socket without a shim refuses

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _address = listener.accept()
        except BlockingIOError:
            return
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        if UCRED.unpack(peer)[1] != os.getuid():
            sock.close()
            return
        self.serve(sock)

    def serve(self, sock: socket.socket) -> None:
        """Serve the engine at the other end of ``sock``."""
        sock.setblocking(False)
        self._connections[sock.fileno()] = sock
        self._event_loop.watch(sock.fileno(), select.EPOLLIN, lambda _: self._on_message(sock))

    def notify(self, event: shim_protocol.Event) -> None:
        """Send an event to every connected engine."""
        data = shim_protocol.encode(event)
        for sock in list(self._connections.values()):
            self._send(data, sock)

    def _send(self, data: bytes, sock: socket.socket, fds: Sequence[int] = ()) -> None:
        try:
            seqpacket.send(sock, data, fds)
        except OSError:  # gone, or so far behind that it must reconnect
            self._disconnect(sock)

    def _disconnect(self, sock: socket.socket) -> None:
        if self._connections.pop(sock.fileno(), None) is not None:
            self._event_loop.forget(sock.fileno())
            sock.close()

    def _on_message(self, sock: socket.socket) -> None:
        try:
            data, fds = seqpacket.receive(sock)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._disconnect(sock)
            return
        number = 0
        passed: Sequence[int] = ()
        try:
            request = shim_protocol.decode_shim_request(data)
            number = request.number
            reply = self._handle(request, fds)
            passed = self._held if isinstance(request, HelloRequest) else ()
        except JaulaError as error:
            reply = Answer(number, error=str(error), exit_code=error.exit_code, errno=error.errno)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            reply = Answer(number, error=str(error))
        finally:
            for fd in fds:
                os.close(fd)
        self._send(shim_protocol.encode(reply), sock, passed)
        self._after_reply()
