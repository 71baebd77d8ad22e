"""The keeper: a small process that holds an ordinary user's namespaces and published ports.

Engines come and go while containers run on, and all of them must be in the same user and network
namespace. The keeper is in both from the first engine on, and ends by itself when neither an engine
nor a container's shim is left: each of them holds the fifo ``keeper/alive`` open for writing.

Facts: unshare(2) and setns(2) change the network namespace of the calling thread only. A thread
that was started before stays in the host's, and makes the sockets that face outside. With user
namespaces it is otherwise: those are left by processes that have one thread.
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
from jaula.kernel.links import set_link
from jaula.kernel.namespaces import CLONE
from jaula.kernel.rtnetlink import Rtnetlink
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

EXPIRE_INTERVAL = 30.0  # seconds between two looks for senders that are silent
MAX_REQUEST = 1 << 18


class HostSockets:
    """Makes sockets in the network namespace in which this object was made."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[socket.socket | OSError] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="outside", daemon=True).start()

    def _serve(self) -> None:
        while True:
            family, kind = self._asked.get()
            try:
                self._made.put(socket.socket(family, kind))
            except OSError as error:
                self._made.put(error)

    def socket(self, family: int, kind: int) -> socket.socket:
        """A socket of the host's network. Raises ``OSError``."""
        self._asked.put((family, kind))
        made = self._made.get()
        if isinstance(made, OSError):
            raise made
        return made


class PortForwards:
    """Every port that is held."""

    def __init__(self, poller: EventLoop, outside: HostSockets) -> None:
        self._poller = poller
        self._outside = outside
        self._held: dict[Forward, TcpForward | UdpForward] = {}

    def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        try:
            if isinstance(request, Bind):
                self._hold(request.forward)
            elif isinstance(request, Release):
                self._drop(request.forward)
            elif isinstance(request, ReleaseOthers):
                for forward in self._held.keys() - set(request.forwards):
                    self._drop(forward)
        except OSError as error:
            return Answer(error.errno or errno.EIO)
        return Answer()

    def _hold(self, forward: Forward) -> None:
        if forward in self._held:
            return
        if forward.protocol not in ("tcp", "udp"):
            raise OSError(errno.EPROTONOSUPPORT, "only TCP and UDP are sent on")
        tcp = forward.protocol == "tcp"
        family = socket.AF_INET6 if ":" in forward.address else socket.AF_INET
        bound = self._outside.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        try:
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if tcp:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((forward.address, forward.port))
            kind = TcpForward if tcp else UdpForward
            self._held[forward] = kind(self._poller, bound, forward)
        except OSError:
            bound.close()
            raise

    def _drop(self, forward: Forward) -> None:
        held = self._held.pop(forward, None)
        if held is not None:
            held.close()

    def expire(self) -> None:
        """Forget what has been silent."""
        now = time.monotonic()
        for held in self._held.values():
            held.expire(now)


class ControlSocket:
    """The socket on which engines ask."""

    def __init__(self, poller: EventLoop, listening: socket.socket, ports: PortForwards) -> None:
        self._poller = poller
        self._listening = listening
        self._ports = ports
        listening.setblocking(False)
        poller.watch(listening.fileno(), select.EPOLLIN, self._accept)

    def _accept(self, _: int) -> None:
        try:
            engine, _address = self._listening.accept()
        except OSError:  # gone again
            return
        engine.setblocking(False)
        self._poller.watch(engine.fileno(), select.EPOLLIN, lambda _: self._serve(engine))

    def _serve(self, engine: socket.socket) -> None:
        try:
            data = engine.recv(MAX_REQUEST)
            if data:
                engine.send(encode(self._ports.answer(decode_request(data))), socket.MSG_NOSIGNAL)
                return
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            os.write(2, f"jaula-keeper: {error}\n".encode())
        self._poller.forget(engine.fileno())
        engine.close()


def serve(directory: str, ready: int, go: int, held: int) -> NoReturn:
    """The life of a keeper, in its user namespace already. ``directory`` is its own.

    It makes the network namespace, writes a byte to ``ready``, and ends if ``go`` closes before one
    is read from it. ``held`` is kept open to the end.
    """
    code = 0
    try:
        process.set_name("jaula-keeper")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(null, 1)
        process.close_others((ready, go, held))
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two for a connection
        outside = HostSockets()
        namespaces.unshare(CLONE.NEWNET)
        with Rtnetlink() as netlink:
            netlink.send(set_link("lo", up=True))
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(f"{directory}/{CONTROL_SOCKET}")
        listening.listen()
        alive = os.open(f"{directory}/{KEEPALIVE_FIFO}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.write(ready, b"1")
        if os.read(go, 1):
            os.close(ready)
            os.close(go)
            _loop(directory, alive, listening, outside)
    except BaseException as error:
        code = 1
        os.write(2, f"jaula-keeper: {type(error).__name__}: {error}\n".encode())
        raise
    finally:
        os._exit(code)


def _loop(directory: str, alive: int, listening: socket.socket, outside: HostSockets) -> None:
    poller = EventLoop()
    ports = PortForwards(poller, outside)
    ControlSocket(poller, listening, ports)
    alone: list[bool] = []
    poller.watch(alive, 0, lambda _: alone.append(True))  # a hang-up is reported always
    while True:
        try:
            poller.turn(EXPIRE_INTERVAL)
        except OSError as error:  # of one connection: the others go on
            os.write(2, f"jaula-keeper: {error}\n".encode())
        ports.expire()
        if alone:
            alone.clear()
            if _may_end(directory, alive):
                return


def _may_end(directory: str, alive: int) -> bool:
    """Whether nobody has come meanwhile; then nobody will: the socket is gone under the lock."""
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    looking = select.poll()
    looking.register(alive, 0)
    if not looking.poll(0):
        os.close(lock)
        return False
    os.unlink(f"{directory}/{CONTROL_SOCKET}")
    return True  # the lock ends with the process
