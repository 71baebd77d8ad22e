"""The namespace holder: a small process that holds a user's namespaces and published ports.

Its process name is ``jaula-keeper``. Engines come and go while containers keep running, and all of
them have to be in the same user and network namespace. The holder is in both from the first engine
on. It exits when no engine and no shim is left: each of them holds the fifo ``keeper/alive`` open
for writing. If another program removes that file, a running engine lets the holder make a second
fifo: the processes that have the first one open count as before.

Facts: unshare(2) and setns(2) change the network namespace of the calling thread only. A thread
that was started before stays in the host's, and creates the sockets of published ports. User
namespaces differ: only a process with a single thread can change its own.
"""

from __future__ import annotations

import contextlib
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

from jaula.kernel import namespaces, process_calls
from jaula.kernel.namespaces import CLONE
from jaula.kernel.rtnetlink import Rtnetlink, set_link
from jaula.rootless.holder_state import CONTROL_SOCKET, KEEPALIVE_FIFO
from jaula.rootless.port_forwarder import TcpForward, UdpForward
from jaula.rootless.port_protocol import (
    Answer,
    Bind,
    Forward,
    Release,
    ReleaseOthers,
    Request,
    RestoreFiles,
    decode_request,
    encode,
)
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


class Keepalive:
    """The fifos that engines and shims hold open."""

    def __init__(self, loop: EventLoop, directory: str) -> None:
        self._loop = loop
        self._directory = directory
        self._fifos: list[int] = []
        self.hung_up = False
        """A process has closed the last descriptor of a fifo."""

    def open(self) -> None:
        """Open the fifo that is there."""
        path = f"{self._directory}/{KEEPALIVE_FIFO}"
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._fifos.append(fd)
        # EPOLLHUP is always reported: once, as it stays while another fifo is in use.
        self._loop.watch(fd, select.EPOLLET, self._hang_up)

    def restore(self) -> None:
        """Create a fifo if there is none. It counts as used after its first opening."""
        path = f"{self._directory}/{KEEPALIVE_FIFO}"
        if os.path.lexists(path):
            return
        os.mkfifo(path, 0o600)
        self.open()
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def _hang_up(self, _: int) -> None:
        self.hung_up = True

    def is_used(self) -> bool:
        """Return whether a process has a fifo open."""
        self.hung_up = False
        poll = select.poll()
        for fd in self._fifos:
            poll.register(fd, 0)
        return len(poll.poll(0)) < len(self._fifos)


class ControlSocket:
    """The socket on which engines send requests."""

    def __init__(
        self, loop: EventLoop, directory: str, ports: PortForwards, keepalive: Keepalive
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._ports = ports
        self._keepalive = keepalive
        self._listening: socket.socket | None = None

    def listen(self) -> None:
        """Listen on a new socket, in place of the present one."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            listening.bind(f"{self._directory}/{CONTROL_SOCKET}")
            listening.listen()
        except OSError:
            listening.close()
            raise
        if self._listening is not None:
            self._loop.forget(self._listening.fileno())
            self._listening.close()
        self._listening = listening
        self._loop.watch(listening.fileno(), select.EPOLLIN, lambda _: self._accept(listening))

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _address = listening.accept()
        except OSError:  # the client has disconnected
            return
        connection.setblocking(False)
        self._loop.watch(connection.fileno(), select.EPOLLIN, lambda _: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(MAX_REQUEST)
            if data:
                answer = self._answer(decode_request(data))
                connection.send(encode(answer), socket.MSG_NOSIGNAL)
                return
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            os.write(2, f"jaula-keeper: {error}\n".encode())
        self._loop.forget(connection.fileno())
        connection.close()

    def _answer(self, request: Request) -> Answer:
        if not isinstance(request, RestoreFiles):
            return self._ports.answer(request)
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            self._keepalive.restore()
            if not os.path.lexists(f"{self._directory}/{CONTROL_SOCKET}"):
                self.listen()
        except OSError as error:
            return Answer(error.errno or errno.EIO)
        return Answer()


def serve(directory: str, ready_fd: int, go_fd: int, held: int) -> NoReturn:
    """Run the holder. The calling process is in the user namespace already.

    Creates the network namespace and writes a byte to ``ready_fd``. Exits if ``go_fd`` is closed
    before a byte was read from it. ``directory`` is the holder's; ``held`` stays open until the
    exit.
    """
    process_calls.run_and_exit("jaula-keeper", lambda: _run(directory, ready_fd, go_fd, held))


def _run(directory: str, ready_fd: int, go_fd: int, held: int) -> None:
    process_calls.set_name("jaula-keeper")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(null, 1)
    process_calls.close_fds_except((ready_fd, go_fd, held))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection needs two
    host_sockets = HostSockets()
    namespaces.unshare(CLONE.NEWNET)
    with Rtnetlink() as netlink:
        netlink.send(set_link("lo", up=True))
    loop = EventLoop()
    ports = PortForwards(loop, host_sockets)
    keepalive = Keepalive(loop, directory)
    ControlSocket(loop, directory, ports, keepalive).listen()
    keepalive.open()
    os.write(ready_fd, b"1")
    if os.read(go_fd, 1):
        os.close(ready_fd)
        os.close(go_fd)
        _run_loop(directory, loop, ports, keepalive)


def _run_loop(directory: str, loop: EventLoop, ports: PortForwards, keepalive: Keepalive) -> None:
    while True:
        try:
            loop.run_once(EXPIRE_INTERVAL)
        except OSError as error:  # of one connection: the others continue
            os.write(2, f"jaula-keeper: {error}\n".encode())
        ports.expire()
        if keepalive.hung_up and _may_exit(directory, keepalive):
            return


def _may_exit(directory: str, keepalive: Keepalive) -> bool:
    """Return whether no process has opened a fifo again.

    If not, the control socket is removed under the lock, so no process can connect any more.
    Without the directory no process can either.
    """
    try:
        lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return not keepalive.is_used()
    fcntl.flock(lock, fcntl.LOCK_EX)
    if keepalive.is_used():
        os.close(lock)
        return False
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{directory}/{CONTROL_SOCKET}")
    return True  # the lock is released when the process exits
