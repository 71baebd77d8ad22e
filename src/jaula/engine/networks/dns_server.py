"""The embedded DNS server: one resolver for each container that is on a user's network.

The sockets are in the containers' namespaces (:mod:`jaula.network.dns.resolver_sockets`); the
engine's event loop serves them. Other names are forwarded, from the host, to the host's name
servers or to those of ``--dns``. Everything that a container can make grow has a limit: pending
queries, connections, and the time for both.

For a container with an egress list, only the names of the list are forwarded, in a query that the
engine writes. The firewall learns the addresses of an answer before the container does. An answer
that points into internal networks is refused (:mod:`jaula.network.dns.internal_addresses`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from jaula.engine.networks.provided_files import read_text
from jaula.errors import InvalidRequest, JaulaError
from jaula.network import etc_files
from jaula.network.dns import container_names, internal_addresses, message, resolver_sockets
from jaula.network.network_table import BRIDGE
from jaula.spec import egress
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from jaula.network.manager import NetworkManager
    from jaula.spec.egress import Destination
    from jaula.spec.endpoint_record import Endpoint

log = logging.getLogger("jaula.resolver")

PENDING_LIMIT = 64  # forwarded queries of one container
CONNECTIONS = 16  # TCP connections of one container
IDLE = 10.0  # seconds that a connection may be idle
TIMEOUT = 2.0  # seconds for one name server
SERVERS = 3  # MAXNS of resolv.conf(5)
BATCH = 32  # datagrams before the event loop runs other tasks
REFUSED = 256  # names that are remembered for one container
RATE = 2000  # queries of one container per second; more than that wait in its own socket
_WINDOW = 0.1  # seconds
_HOST = "/etc/resolv.conf"


@functools.lru_cache(64)
def _parsed(lists: tuple[tuple[str, ...], ...]) -> tuple[Destination, ...]:
    """Return the items of egress lists. A container may send thousands of queries in a second."""
    return tuple(dict.fromkeys(chain(*map(egress.parse, lists))))


class DnsServers:
    """The DNS servers of all containers, by container id."""

    def __init__(self, network: NetworkManager) -> None:
        self._network = network
        self._open: dict[str, DnsServer] = {}
        self._host = UpstreamServers()

    async def open(
        self, container_id: str, netns_fd: int, servers: Sequence[str], *, new: bool = False
    ) -> None:
        """Serve DNS in a network namespace; ``servers`` replace the host's name servers.

        ``new``: the namespace had no resolver before.

        :raises JaulaError: when the sockets cannot be opened.
        """
        self.close_one(container_id)
        udp, tcp = resolver_sockets.open_sockets(netns_fd, new=new)
        server = DnsServer(container_id, self._network, self._host, servers, udp)
        self._open[container_id] = server
        try:
            await server.listen(tcp)
        except BaseException:
            self.close_one(container_id)
            tcp.close()
            raise

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._open

    def refused(self, container_id: str) -> dict[str, int]:
        """Return the names that a container's egress list refused, with their queries."""
        server = self._open.get(container_id)
        return {} if server is None else dict(server.refused)

    def close_one(self, container_id: str) -> None:
        """Close the server of a container, if it has one."""
        server = self._open.pop(container_id, None)
        if server is not None:
            server.close()

    def close(self) -> None:
        """Close every server; the next engine opens them again."""
        for container_id in tuple(self._open):
            self.close_one(container_id)


class UpstreamServers:
    """The host's name servers; the file is read again when it has changed."""

    def __init__(self, path: str = _HOST) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._servers = etc_files.name_servers(read_text(self._path))
                self._stamp = stamp
        except OSError:
            self._servers, self._stamp = (), None
        return self._servers or etc_files.FALLBACK_SERVERS


class QueryQuota:
    """The number of queries that are read in one window; ``now`` is in seconds of a clock."""

    def __init__(self, rate: int = RATE) -> None:
        self._size = int(rate * _WINDOW)
        self._left = 0
        self._end = 0.0

    def take(self, now: float) -> float:
        """Take one query: return 0, or the seconds to wait before the next attempt."""
        if now >= self._end:
            self._left, self._end = self._size, now + _WINDOW
        if self._left:
            self._left -= 1
            return 0.0
        return self._end - now


class DnsServer:
    """Serves one container. This object owns ``udp``."""

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
        self._servers = tuple(filter(container_names.is_usable_server, servers))
        self._udp = udp
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._tasks = BackgroundTasks(log, f"resolver of {container_id[:12]}")
        self._connections: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._quota = QueryQuota()
        self.refused: dict[str, int] = {}  # names that the list lacks, with their queries
        self._reported: set[str] = set()
        self._read()

    async def listen(self, tcp: socket.socket) -> None:
        """Serve TCP connections too."""
        self._server = await asyncio.start_server(self._connected, sock=tcp, limit=1 << 17)

    def close(self) -> None:
        """Close the sockets and cancel pending queries."""
        self._loop.remove_reader(self._udp.fileno())
        self._udp.close()
        if self._server is not None:
            self._server.close()
        self._tasks.cancel()
        for task in tuple(self._connections):
            task.cancel()

    # -- datagrams -----------------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(BATCH):
            if pause := self._quota.take(self._loop.time()):
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
            answer = self._answer(query, query.size)
            if answer is not None:
                self._allow(query, answer)
                self._send(answer, source)
            elif refusal := self._refuse(query):
                self._send(message.failure(query, refusal), source)
            else:
                self._tasks.spawn(self._forward_udp(query, data, source))

    def _read(self) -> None:
        if self._udp.fileno() >= 0:
            self._loop.add_reader(self._udp.fileno(), self._readable)

    def _send(self, data: bytes, target: tuple[str, int]) -> None:
        try:
            self._udp.sendto(data, target)
        except OSError as error:  # the buffer is full or the client is gone: a datagram may be lost
            log.debug("resolver of %s: %s", self._id[:12], error)

    async def _forward_udp(
        self, query: message.Query, data: bytes, source: tuple[str, int]
    ) -> None:
        answer = await self._forward(query, data, tcp=False)
        if self._udp.fileno() >= 0:
            self._send(answer, source)

    # -- connections ---------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._serve_connection(reader, writer)
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

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            async with asyncio.timeout(IDLE):
                data = await _receive(reader)
            # Let other tasks run: a pipelined query is read without waiting.
            await asyncio.sleep(self._quota.take(self._loop.time()))
            query = message.parse(data)
            answer = self._answer(query, 65535)
            if answer is not None:
                self._allow(query, answer)
            elif refusal := self._refuse(query):
                answer = message.failure(query, refusal)
            else:
                answer = await self._forward(query, data, tcp=True)
            writer.write(len(answer).to_bytes(2, "big") + answer)
            async with asyncio.timeout(IDLE):
                await writer.drain()

    # -- answers -------------------------------------------------------------------------------

    def _own(self) -> list[Endpoint]:
        return [e for e in self._network.endpoints() if e.container_id == self._id]

    def _answer(self, query: message.Query, limit: int) -> bytes | None:
        named = [endpoint for endpoint in self._own() if endpoint.network != BRIDGE]
        return container_names.answer(query, named, self._network.endpoints, limit=limit)

    def _list(self) -> tuple[Destination, ...] | None:
        """Return the items of the container's egress lists, None without a list."""
        lists = tuple(each.egress for each in self._own() if each.egress is not None)
        return _parsed(lists) if lists else None

    def _allow(self, query: message.Query, answer: bytes) -> None:
        """Open the addresses of an answer for a container with an egress list."""
        if self._list() is not None:
            self._open_addresses(query, message.parse_addresses(answer))

    def _open_addresses(self, query: message.Query, addresses: dict[str, int]) -> None:
        if not (openable := container_names.connectable(addresses)):
            return
        try:
            self._network.allow_name(self._id, query.name, openable)
        except JaulaError as error:
            log.warning("container %s: egress to %s: %s", self._id[:12], query.name, error)

    def _refuse(self, query: message.Query) -> int:
        """Return the response code for a query that is not forwarded, 0 for one that is."""
        own = self._own()
        if self._pending >= PENDING_LIMIT or not container_names.may_forward(own):
            return message.SERVFAIL
        code = container_names.judge(query, own, self._list())
        if code == message.REFUSED:
            self._note(query.name)
        return code

    def _note(self, name: str) -> None:
        """Count a name that was refused. One that no item can have is not counted."""
        try:
            name = egress.parse_item(f"{egress.DNS}:{name}").name
        except InvalidRequest:
            return
        if name in self.refused or len(self.refused) < REFUSED:
            self.refused[name] = self.refused.get(name, 0) + 1

    def _checked(self, query: message.Query, answer: bytes) -> bytes:
        """Return the answer of a name server, or a refusal if it points into internal networks.

        Such an address is passed on if the list contains it. It is opened for the ports of the name
        only if the list has just this address: a network would let the name choose one of many.
        """
        items = self._list()
        if items is None:
            return answer
        addresses = message.parse_addresses(answer)
        networks = self._network.subnets()
        internal = [each for each in addresses if internal_addresses.is_internal(each, networks)]
        if hostile := container_names.unlisted(internal, items):
            if query.name not in self._reported and len(self._reported) < REFUSED:
                self._reported.add(query.name)
                log.warning(
                    "container %s: the answer for %s is refused: %s is not a public address, and"
                    " the egress list lacks it",
                    *(self._id[:12], query.name, hostile[0]),
                )
            return message.failure(query, message.REFUSED)
        openable = {
            text: ttl
            for text, ttl in addresses.items()
            if text not in internal or container_names.is_named(text, items)
        }
        self._open_addresses(query, openable)
        return message.with_question(answer, query)

    async def _forward(self, query: message.Query, data: bytes, *, tcp: bool) -> bytes:
        """Return the first answer of a name server; SERVFAIL if none answers."""
        if self._list() is not None:
            data = message.plain_query(query)
        self._pending += 1
        try:
            for server in (self._servers or self._host())[:SERVERS]:
                try:
                    async with asyncio.timeout(TIMEOUT):
                        send = _query_tcp if tcp else _query_udp
                        answer = await send(server, query, data)
                    return self._checked(query, answer)
                except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                    log.debug("name server %s: %s", server, error or "no answer")
            return message.failure(query, message.SERVFAIL)
        finally:
            self._pending -= 1


async def _receive(reader: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(size)


async def _query_udp(server: str, query: message.Query, data: bytes) -> bytes:
    """Query by UDP; a random id and source port keep other hosts from forging the answer."""
    loop = asyncio.get_running_loop()
    identity = int.from_bytes(os.urandom(2))
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect((server, resolver_sockets.PORT))
        await loop.sock_sendall(sock, message.with_id(data, identity))
        while True:
            answer = await loop.sock_recv(sock, 65535)
            if message.is_answer_to(answer, identity, query):
                return message.with_id(answer, query.id)


async def _query_tcp(server: str, query: message.Query, data: bytes) -> bytes:
    identity = int.from_bytes(os.urandom(2))
    reader, writer = await asyncio.open_connection(server, resolver_sockets.PORT)
    try:
        writer.write(len(data).to_bytes(2, "big") + message.with_id(data, identity))
        await writer.drain()
        while True:
            answer = await _receive(reader)
            if message.is_answer_to(answer, identity, query):
                return message.with_id(answer, query.id)
    finally:
        writer.close()
