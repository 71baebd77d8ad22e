"""The namespace holder: a small process that holds a user's namespaces and published ports.

Its process name is ``jaula-keeper``. Engines come and go while containers keep running, and all of
them have to be in the same user and network namespace. The holder is in both from the first engine
on. It exits when no engine and no shim is left: each of them holds the fifo ``keeper/alive`` open
for writing.

Facts: unshare(2) and setns(2) change the network namespace of the calling thread only. A thread
that was started before stays in the host's, and creates the sockets of published ports. User
namespaces differ: only a process with a single thread can change its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import queue
import resource
import select
import signal
import socket
import threading
import time
from typing import NoReturn

import msgspec

from jaula.kernel import namespaces, process
from jaula.kernel.namespaces import CLONE
from jaula.kernel.rtnetlink import Rtnetlink, set_link
from jaula.rootless.port_forwarder import TcpForward, UdpForward
from jaula.rootless.port_protocol import (
    Answer,
    Bind,
    Forward,
    Release,
    ReleaseOthers,
    Request,
    decode_request,
    encode,
)
from jaula.rootless.state import CONTROL_SOCKET, KEEPALIVE_FIFO
from jaula.runtime.shim.event_loop import EventLoop

EXPIRE_INTERVAL = 30.0  # seconds between two searches for idle UDP senders
MAX_REQUEST = 1 << 18  # bytes


class HostSockets:
    """Creates sockets in the network namespace in which this object was created."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[socket.socket | OSError] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="host-sockets", daemon=True).start()

    def _serve(self) -> None:
        while True:
            family, type_ = self._requests.get()
            try:
                self._results.put(socket.socket(family, type_))
            except OSError as error:
                self._results.put(error)

    def socket(self, family: int, type_: int) -> socket.socket:
        """Return a socket of the host's network namespace.

        :raises OSError: when the kernel refuses.
        """
        self._requests.put((family, type_))
        result = self._results.get()
        if isinstance(result, OSError):
            raise result
        return result


class PortForwards:
    """All published ports, each with its forwarder."""

    def __init__(self, loop: EventLoop, host_sockets: HostSockets) -> None:
        self._loop = loop
        self._host_sockets = host_sockets
        self._forwards: dict[Forward, TcpForward | UdpForward] = {}

    def answer(self, request: Request) -> Answer:
        """Execute a request and return the answer."""
        try:
            if isinstance(request, Bind):
                self._bind(request.forward)
            elif isinstance(request, Release):
                self._release(request.forward)
            elif isinstance(request, ReleaseOthers):
                for forward in self._forwards.keys() - set(request.forwards):
                    self._release(forward)
        except OSError as error:
            return Answer(error.errno or errno.EIO)
        return Answer()

    def _bind(self, forward: Forward) -> None:
        if forward in self._forwards:
            return
        if forward.protocol not in ("tcp", "udp"):
            raise OSError(errno.EPROTONOSUPPORT, "only TCP and UDP are forwarded")
        tcp = forward.protocol == "tcp"
        family = socket.AF_INET6 if ":" in forward.address else socket.AF_INET
        sock = self._host_sockets.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if tcp:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((forward.address, forward.port))
            forwarder = TcpForward if tcp else UdpForward
            self._forwards[forward] = forwarder(self._loop, sock, forward)
        except OSError:
            sock.close()
            raise

    def _release(self, forward: Forward) -> None:
        forwarder = self._forwards.pop(forward, None)
        if forwarder is not None:
            forwarder.close()

    def expire(self) -> None:
        """Close the sockets of idle UDP senders."""
        now = time.monotonic()
        for forwarder in self._forwards.values():
            forwarder.expire(now)


class ControlSocket:
    """The socket on which engines send requests."""

    def __init__(self, loop: EventLoop, listening: socket.socket, ports: PortForwards) -> None:
        self._loop = loop
        self._listening = listening
        self._ports = ports
        listening.setblocking(False)
        loop.watch(listening.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            connection, _address = self._listening.accept()
        except OSError:  # the client has disconnected
            return
        connection.setblocking(False)
        self._loop.watch(connection.fileno(), select.EPOLLIN, lambda _: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(MAX_REQUEST)
            if data:
                connection.send(
                    encode(self._ports.answer(decode_request(data))), socket.MSG_NOSIGNAL
                )
                return
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            os.write(2, f"jaula-keeper: {error}\n".encode())
        self._loop.forget(connection.fileno())
        connection.close()


def serve(directory: str, ready_fd: int, go_fd: int, held: int) -> NoReturn:
    """Run the holder. The calling process is in the user namespace already.

    Creates the network namespace and writes a byte to ``ready_fd``. Exits if ``go_fd`` is closed
    before a byte was read from it. ``directory`` is the holder's; ``held`` stays open until the
    exit.
    """
    process.run_and_exit("jaula-keeper", lambda: _run(directory, ready_fd, go_fd, held))


def _run(directory: str, ready_fd: int, go_fd: int, held: int) -> None:
    process.set_name("jaula-keeper")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(null, 1)
    process.close_fds_except((ready_fd, go_fd, held))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection needs two
    host_sockets = HostSockets()
    namespaces.unshare(CLONE.NEWNET)
    with Rtnetlink() as netlink:
        netlink.send(set_link("lo", up=True))
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(f"{directory}/{CONTROL_SOCKET}")
    listening.listen()
    alive = os.open(f"{directory}/{KEEPALIVE_FIFO}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(ready_fd, b"1")
    if os.read(go_fd, 1):
        os.close(ready_fd)
        os.close(go_fd)
        _run_loop(directory, alive, listening, host_sockets)


def _run_loop(
    directory: str, alive: int, listening: socket.socket, host_sockets: HostSockets
) -> None:
    loop = EventLoop()
    ports = PortForwards(loop, host_sockets)
    ControlSocket(loop, listening, ports)
    hangups: list[bool] = []
    loop.watch(alive, 0, lambda _: hangups.append(True))  # EPOLLHUP is always reported
    while True:
        try:
            loop.run_once(EXPIRE_INTERVAL)
        except OSError as error:  # of one connection: the others continue
            os.write(2, f"jaula-keeper: {error}\n".encode())
        ports.expire()
        if hangups:
            hangups.clear()
            if _may_exit(directory, alive):
                return


def _may_exit(directory: str, alive: int) -> bool:
    """Return whether no process has opened the fifo again.

    If not, the control socket is removed under the lock, so no process can connect any more.
    """
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    poll = select.poll()
    poll.register(alive, 0)
    if not poll.poll(0):
        os.close(lock)
        return False
    os.unlink(f"{directory}/{CONTROL_SOCKET}")
    return True  # the lock is released when the process exits
