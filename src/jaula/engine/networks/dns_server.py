"""Answering the questions of containers: one resolver for each that is on a user's network.

The sockets are in the containers' namespaces (:mod:`jaula.network.dns.resolver_sockets`), the work is done by
the engine's loop. What no container is called is asked of the host's name servers, or of those
that ``--dns`` named, from the host. Everything a container can make grow has a limit: questions
that wait for a server, connections, and the time for both.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaula.network import etc_files
from jaula.network.dns import message, names, resolver_sockets
from jaula.network.networks import BRIDGE
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.network.manager import NetworkManager
    from jaula.spec.endpoint import Endpoint

log = logging.getLogger("jaula.resolver")

WAITING_LIMIT = 64  # questions of one container that servers were asked
CONNECTIONS = 16  # of one container
IDLE = 10.0  # seconds that a connection may say nothing
PATIENCE = 2.0  # seconds for one server
SERVERS = 3  # MAXNS of resolv.conf(5)
BATCH = 32  # datagrams before others have a turn
RATE = 2000  # questions of one container in a second; more than that wait in its own socket
_WINDOW = 0.1  # seconds
_HOST = "/etc/resolv.conf"


class DnsServers:
    """The resolvers of all containers, by container."""

    def __init__(self, network: NetworkManager) -> None:
        self._network = network
        self._open: dict[str, DnsServer] = {}
        self._host = UpstreamServers()

    async def open(
        self, container_id: str, netns_fd: int, servers: Sequence[str], *, new: bool = False
    ) -> None:
        """Begin to answer in that namespace; ``servers`` are asked in place of the host's.

        ``new`` says that the namespace had no resolver before.

        :raises JaulaError: the sockets cannot be had.
        """
        self.close_one(container_id)
        udp, tcp = resolver_sockets.open_sockets(netns_fd, new=new)
        found = DnsServer(container_id, self._network, self._host, servers, udp)
        self._open[container_id] = found
        try:
            await found.listen(tcp)
        except BaseException:
            self.close_one(container_id)
            tcp.close()
            raise

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._open

    def close_one(self, container_id: str) -> None:
        """Stop answering a container; one that has no resolver is no error."""
        found = self._open.pop(container_id, None)
        if found is not None:
            found.close()

    def close(self) -> None:
        """Stop answering; the next engine goes on."""
        for container_id in tuple(self._open):
            self.close_one(container_id)


class UpstreamServers:
    """The host's name servers, read again when the file has changed."""

    def __init__(self, path: str = _HOST) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        try:
            found = os.stat(self._path)
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = etc_files.name_servers(file.read(1 << 20))
                self._stamp = stamp
        except OSError:
            self._servers, self._stamp = (), None
        return self._servers or etc_files.FALLBACK_SERVERS


class QueryQuota:
    """How many questions are still read now. ``now`` is a clock's seconds."""

    def __init__(self, rate: int = RATE) -> None:
        self._size = int(rate * _WINDOW)
        self._left = 0
        self._end = 0.0

    def take(self, now: float) -> float:
        """Take one: 0, or the seconds to wait before asking again."""
        if now >= self._end:
            self._left, self._end = self._size, now + _WINDOW
        if self._left:
            self._left -= 1
            return 0.0
        return self._end - now


class DnsServer:
    """Answers one container. ``udp`` is this object's from here on."""

    def __init__(
        self,
        container_id: str,
        network: NetworkManager,
        host: UpstreamServers,
        servers: Sequence[str],
        udp: socket.socket,
    ) -> None:
        self._id = container_id
        self._network = network
        self._host = host
        self._asked = tuple(filter(names.is_usable_server, servers))
        self._udp = udp
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._tasks = BackgroundTasks(log, f"resolver of {container_id[:12]}")
        self._connections: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._allowance = QueryQuota()
        self._read()

    async def listen(self, tcp: socket.socket) -> None:
        """Answer on connections too."""
        self._server = await asyncio.start_server(self._connected, sock=tcp, limit=1 << 17)

    def close(self) -> None:
        """Let go of the sockets and of who waits."""
        self._loop.remove_reader(self._udp.fileno())
        self._udp.close()
        if self._server is not None:
            self._server.close()
        self._tasks.cancel()
        for task in tuple(self._connections):
            task.cancel()

    # -- datagrams ---------------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(BATCH):
            if pause := self._allowance.take(self._loop.time()):
                self._loop.remove_reader(self._udp.fileno())
                self._loop.call_later(pause, self._read)
                return
            try:
                data, source = self._udp.recvfrom(4096)
            except OSError:
                return
            try:
                query = message.parse(data)
            except message.MalformedMessage:
                continue
            found = self._answer(query, query.size)
            if found is not None:
                self._send(found, source)
            elif not self._may_ask():
                self._send(message.failure(query, message.SERVFAIL), source)
            else:
                self._tasks.spawn(self._pass_on(query, data, source))

    def _read(self) -> None:
        if self._udp.fileno() >= 0:
            self._loop.add_reader(self._udp.fileno(), self._readable)

    def _send(self, data: bytes, target: tuple[str, int]) -> None:
        try:
            self._udp.sendto(data, target)
        except OSError as error:  # full, or nobody listens any more: a datagram may be lost
            log.debug("resolver of %s: %s", self._id[:12], error)

    async def _pass_on(self, query: message.Query, data: bytes, source: tuple[str, int]) -> None:
        found = await self._ask(query, data, tcp=False)
        if self._udp.fileno() >= 0:
            self._send(found, source)

    # -- connections -------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (
            OSError,
            TimeoutError,
            asyncio.IncompleteReadError,
            message.MalformedMessage,
        ) as error:
            log.debug("resolver of %s: connection: %s", self._id[:12], error)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE):
                data = await _receive(reader)
            # Others have their turn too: what was sent ahead is read without waiting.
            await asyncio.sleep(self._allowance.take(self._loop.time()))
            query = message.parse(data)
            found = self._answer(query, 65535)
            if found is None and not self._may_ask():
                found = message.failure(query, message.SERVFAIL)
            if found is None:
                found = await self._ask(query, data, tcp=True)
            writer.write(len(found).to_bytes(2, "big") + found)
            async with asyncio.timeout(IDLE):
                await writer.drain()

    # -- answers -----------------------------------------------------------------------------

    def _own(self) -> list[Endpoint]:
        return [e for e in self._network.endpoints() if e.container_id == self._id]

    def _answer(self, query: message.Query, limit: int) -> bytes | None:
        named = [endpoint for endpoint in self._own() if endpoint.network != BRIDGE]
        return names.answer(query, named, self._network.endpoints, limit=limit)

    def _may_ask(self) -> bool:
        return self._waiting < WAITING_LIMIT and names.may_forward(self._own())

    async def _ask(self, query: message.Query, data: bytes, *, tcp: bool) -> bytes:
        """What the first server says that says anything; SERVFAIL if none does."""
        self._waiting += 1
        try:
            for server in (self._asked or self._host())[:SERVERS]:
                try:
                    async with asyncio.timeout(PATIENCE):
                        ask = _ask_by_connection if tcp else _ask_by_datagram
                        return await ask(server, query, data)
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    log.debug("name server %s: %s", server, error or "no answer")
            return message.failure(query, message.SERVFAIL)
        finally:
            self._waiting -= 1


async def _receive(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(size)


async def _ask_by_datagram(server: str, query: message.Query, data: bytes) -> bytes:
    """Under an id and from a port of their own, so that nobody can answer in the server's name."""
    loop = asyncio.get_running_loop()
    identity = secrets.randbits(16)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((server, resolver_sockets.PORT))
        await loop.sock_sendall(sock, message.with_id(data, identity))
        while True:
            found = await loop.sock_recv(sock, 65535)
            if message.is_answer_to(found, identity, query):
                return message.with_id(found, query.id)


async def _ask_by_connection(server: str, query: message.Query, data: bytes) -> bytes:
    identity = secrets.randbits(16)
    reader, writer = await asyncio.open_connection(server, resolver_sockets.PORT)
    try:
        writer.write(len(data).to_bytes(2, "big") + message.with_id(data, identity))
        await writer.drain()
        while True:
            found = await _receive(reader)
            if message.is_answer_to(found, identity, query):
                return message.with_id(found, query.id)
    finally:
        writer.close()
