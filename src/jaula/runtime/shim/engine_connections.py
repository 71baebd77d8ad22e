"""The engines that a shim talks to: the one that started it, and any that finds it later.

A later engine connects to ``shim.sock`` in the container's run directory. Only the user that the
shim runs as is answered. An engine that vanishes or does not read is let go: what it must know of
the container's end is in ``exit.json``.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable

import msgspec

from jaula.errors import JaulaError
from jaula.runtime import protocol, seqpacket
from jaula.runtime.protocol import Answer, ShimRequest
from jaula.runtime.shim.event_loop import EventLoop

SOCKET_NAME = "shim.sock"
_UCRED = struct.Struct("iII")  # pid, uid, gid: unix(7), SO_PEERCRED


class ControlSockets:
    """Channels to engines.

    ``answer`` does what a request asks; descriptors that it keeps it takes out of the list.
    ``answered`` is called after each answer has been sent.
    """

    def __init__(
        self,
        poller: EventLoop,
        run_dir: str,
        answer: Callable[[ShimRequest, list[int]], Answer],
        answered: Callable[[], None],
    ) -> None:
        self._poller = poller
        self._run_dir = run_dir
        self._answer = answer
        self._answered = answered
        self._channels: dict[int, socket.socket] = {}
        self._listener: socket.socket | None = None

    def listen(self) -> None:
        """Be found by later engines. Raises ``OSError``."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with seqpacket.SocketDir(self._run_dir) as place:
                path = f"{place}/{SOCKET_NAME}"
                if os.path.lexists(path):
                    os.unlink(path)
                listener.bind(path)
                os.chmod(path, 0o600)
            listener.listen(8)
        except BaseException:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        self._poller.watch(listener.fileno(), select.EPOLLIN, lambda _: self._accept(listener))

    def vanish(self) -> None:
        """Be found no more."""
        if self._listener is None:
            return
        self._poller.forget(self._listener.fileno())
        self._listener.close()
        self._listener = None
        try:
            os.unlink(f"{self._run_dir}/{SOCKET_NAME}")
        except FileNotFoundError:
            return  # the run directory was removed by the engine

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _address = listener.accept()
        except BlockingIOError:
            return
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        if _UCRED.unpack(peer)[1] != os.getuid():
            sock.close()
            return
        self.serve(sock)

    def serve(self, sock: socket.socket) -> None:
        """Talk to an engine over this channel from now on."""
        sock.setblocking(False)
        self._channels[sock.fileno()] = sock
        self._poller.watch(sock.fileno(), select.EPOLLIN, lambda _: self._message(sock))

    def tell(self, event: protocol.Event) -> None:
        """Send an event to every engine that listens."""
        data = protocol.encode(event)
        for sock in list(self._channels.values()):
            self._send(data, sock)

    def _send(self, data: bytes, sock: socket.socket) -> None:
        try:
            sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:  # gone, or so far behind that it has to ask anew
            self._hang_up(sock)

    def _hang_up(self, sock: socket.socket) -> None:
        if self._channels.pop(sock.fileno(), None) is not None:
            self._poller.forget(sock.fileno())
            sock.close()

    def _message(self, sock: socket.socket) -> None:
        try:
            data, fds = seqpacket.receive(sock)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._hang_up(sock)
            return
        number = 0
        try:
            request = protocol.decode_shim_request(data)
            number = request.number
            answer = self._answer(request, fds)
        except JaulaError as error:
            answer = Answer(number, error=str(error), exit_code=error.exit_code)
        except (OSError, msgspec.MsgspecError) as error:
            answer = Answer(number, error=str(error))
        finally:
            for fd in fds:
                os.close(fd)
        self._send(protocol.encode(answer), sock)
        self._answered()
