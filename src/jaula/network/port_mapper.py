"""What is published: requests for ports of the host, and the socket that keeps one from others.

Facts about bind(2): two TCP sockets with SO_REUSEADDR may bind one port while neither listens. The
option is needed to pass connections in TIME_WAIT of a former owner. So it is tried without, then
with, and cleared after the bind: then another program's listen(2) fails.


Ports of the host that are reserved for containers.

A published port is translated by the firewall, so nothing needs to listen on it. But a socket is
really bound to it, in the engine, so that any other program that wants the port is told
EADDRINUSE, and so that a port which another program has is found out before it is taken away
from it. Messages are Docker's, since clients look for their words.


Ports of the host that lead to containers: reserved, told to the firewall, and taken back."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Protocol

import msgspec

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound, Unsupported
from jaula.network import conntrack
from jaula.network.drivers.bridge import BridgeNetwork
from jaula.spec.endpoint import ANY, ANY6, Endpoint, PublishedPort

PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_SEQPACKET}
DYNAMIC_PORTS = range(49153, 65536)
"""Docker's range for a port that the user did not choose."""


class PortRequest(msgspec.Struct, frozen=True):
    """A port to publish. ``host_port`` None asks for a free one.

    ``host_ip`` '' is every address of the host, of both families where the container has both.
    With ``host_port_end`` the first free port of that inclusive range is taken.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None


class PortTarget(msgspec.Struct, frozen=True):
    """A container's addresses; ``ipv6`` is '' where it has none."""

    ipv4: str = ""
    ipv6: str = ""


def check_request(request: PortRequest) -> PortRequest:
    """The request with its address in one form; InvalidRequest if it makes no sense."""
    if request.protocol not in PROTOCOLS:
        raise InvalidRequest(f"invalid protocol {request.protocol!r}", hint="tcp, udp or sctp")
    first, last = request.host_port, request.host_port_end
    for number in (request.container_port, first or 1, last or 1):
        if not 0 < number < 65536:
            raise InvalidRequest(f"invalid port {number}", hint="ports are from 1 to 65535")
    if last is not None and (first is None or last < first):
        raise InvalidRequest(f"invalid range of host ports {first}-{last}")
    if not request.host_ip:
        return request
    try:
        address = ip_address(request.host_ip)
    except ValueError as exc:
        raise InvalidRequest(f"invalid host address {request.host_ip!r}") from exc
    if address.version == 6 and (address.is_link_local or address.ipv4_mapped is not None):
        raise InvalidRequest(
            f"cannot publish on {address}", hint="name an IPv4 address, or a global IPv6 address"
        )
    return PortRequest(request.container_port, request.protocol, str(address), first, last)


def host_addresses(request: PortRequest, *, ipv6: bool, relays: bool) -> tuple[str, ...]:
    """The addresses of the host where a checked request is published.

    ``ipv6`` says whether the container has an IPv6 address, ``relays`` that what keeps the port
    leads from one family to the other. Raises ``Unsupported`` for what cannot be.
    """
    if not request.host_ip:
        return (ANY, ANY6) if ipv6 or relays else (ANY,)
    if ":" in request.host_ip and not relays:
        if request.host_ip == "::1":
            raise Unsupported(
                "cannot publish on ::1: the kernel translates nothing from there",
                hint="use 127.0.0.1",
            )
        if not ipv6:
            raise Unsupported(
                f"cannot publish on {request.host_ip}: the container has no IPv6 address",
                hint="make its network with --ipv6, or name an IPv4 address of the host",
            )
    return (request.host_ip,)


def dynamic_ports(local_range: range) -> list[range]:
    """Where to look for a free port: Docker's range without the kernel's own, if that leaves any.

    ``local_range`` is ip_local_port_range, from which the kernel takes ports of outgoing
    connections.
    """
    below = range(
        DYNAMIC_PORTS.start, max(DYNAMIC_PORTS.start, min(DYNAMIC_PORTS.stop, local_range.start))
    )
    above = range(
        min(DYNAMIC_PORTS.stop, max(DYNAMIC_PORTS.start, local_range.stop)), DYNAMIC_PORTS.stop
    )
    left = [part for part in (below, above) if part]
    return left if sum(map(len, left)) >= 1024 else [DYNAMIC_PORTS]


def read_local_range(path: str = "/proc/sys/net/ipv4/ip_local_port_range") -> range:
    """The kernel's ports for outgoing connections."""
    with open(path, encoding="ascii") as file:
        first, last = file.read().split()
    return range(int(first), int(last) + 1)


def bind_port(protocol: str, address: str, port: int) -> socket.socket | None:
    """A socket that keeps a port from others; None where the kernel lacks the protocol.

    Raises ``OSError`` (EADDRINUSE, EADDRNOTAVAIL) if the port is not to be had.
    """
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kept = socket.socket(family, PROTOCOLS[protocol], _number(protocol))
    except OSError as exc:
        if exc.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
        if family == socket.AF_INET6:
            kept.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            kept.bind((address, port))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or protocol != "tcp":
                raise
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind((address, port))
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        if protocol == "udp":
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's least
    except OSError:
        kept.close()
        raise
    return kept


def _number(protocol: str) -> int:
    return {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": 132}[protocol]


def candidate_ports(request: PortRequest) -> Iterator[int]:
    """The ports of the host that would do for a request, in the order to try them."""
    if request.host_port:
        yield from range(request.host_port, (request.host_port_end or request.host_port) + 1)
        return
    ranges = dynamic_ports(read_local_range())
    start = int.from_bytes(os.urandom(4), "big")  # spreads the searches of several engines
    for part in ranges:
        for offset in range(len(part)):
            yield part[(start + offset) % len(part)]


_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


NO_TARGET = PortTarget()


class PortUnavailable(JaulaError):
    """A host port is taken, by another container or by another program."""


class ReservedPort(Protocol):
    """What keeps a port: a socket, or somebody who has it."""

    def close(self) -> None:
        """Give the port back."""


Reservation = tuple[PublishedPort, ReservedPort | None]


class PortBinder(Protocol):
    """Takes ports of the host.

    ``outlives`` says that they stay taken when the engine ends, ``relays`` that it speaks with the
    container itself, whatever family a client has.
    """

    outlives: bool
    relays: bool

    def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
        """Keep a port; what arrives there is for the container at the address ``target``.

        None where the kernel lacks the protocol. Raises ``OSError`` if the port is not to be had.
        """

    def keep_only(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Let go of what a former engine has taken beyond these ports and targets."""


class HostPortBinder:
    """Ports of the network namespace that we are in; the firewall sends on what arrives."""

    outlives = False
    relays = False

    def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
        """A socket that is bound there."""
        return bind_port(port.protocol, port.host_ip, port.host_port)

    def keep_only(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Nothing outlives an engine."""


class PortAllocator:
    """Every host port of one engine, by the container that has it."""

    def __init__(self, binder: PortBinder | None = None) -> None:
        self._binder = binder or HostPortBinder()
        self._held: dict[str, list[Reservation]] = {}

    def reserve(
        self, container_id: str, requests: Iterable[PortRequest], target: PortTarget = NO_TARGET
    ) -> list[PublishedPort]:
        """Take the ports of one container, all or none.

        Raises ``PortUnavailable`` with the part of Docker's message that follows
        ``driver failed programming external connectivity on endpoint NAME (ID):``.
        """
        taken: list[Reservation] = []
        try:
            for request in map(check_request, requests):
                taken += self._one(request, [b for b, _ in taken], target)
        except (JaulaError, OSError):
            _give_back(taken)
            raise
        self._held.setdefault(container_id, []).extend(taken)
        return [binding for binding, _ in taken]

    def release(self, container_id: str) -> list[PublishedPort]:
        """Give all ports of a container back and say which they were."""
        rows = self._held.pop(container_id, [])
        _give_back(rows)
        return [binding for binding, _ in rows]

    def held(self, container_id: str) -> tuple[PublishedPort, ...]:
        return tuple(binding for binding, _ in self._held.get(container_id, ()))

    def keep_only(self, targets: Mapping[str, PortTarget]) -> None:
        """Let go of what was taken beyond what is held now. ``targets`` are by container."""
        self._binder.keep_only(
            (binding, self._leads(binding, targets[container_id]))
            for container_id, rows in self._held.items()
            if container_id in targets
            for binding, _ in rows
        )

    def close(self) -> None:
        """Give everything back, unless that is to outlive the engine."""
        if self._binder.outlives:
            self._held.clear()
        for container_id in list(self._held):
            self.release(container_id)

    def _one(
        self, request: PortRequest, also: list[PublishedPort], target: PortTarget
    ) -> list[Reservation]:
        """One port, the same number at each of its addresses."""
        choice = bool(request.host_port_end) or not request.host_port
        where = host_addresses(request, ipv6=bool(target.ipv6), relays=self._binder.relays)
        for port in candidate_ports(request):
            wanted = [
                PublishedPort(request.container_port, request.protocol, address, port)
                for address in where
            ]
            clash = next((binding for binding in wanted if self._clashes(binding, also)), None)
            if clash is None:
                taken = self._bind(request, wanted, target, choice)
                if taken is not None:
                    return taken
            elif not choice:
                raise PortUnavailable(
                    f"Bind for {clash.host_ip}:{port} failed: port is already allocated"
                )
        raise PortUnavailable(
            f"Bind for {where[0]}:{request.host_port or 0} failed: all ports are allocated"
        )

    def _leads(self, binding: PublishedPort, target: PortTarget) -> str:
        relayed = self._binder.relays or ":" not in binding.host_ip
        return target.ipv4 if relayed else target.ipv6

    def _bind(
        self, request: PortRequest, wanted: list[PublishedPort], target: PortTarget, choice: bool
    ) -> list[Reservation] | None:
        """None if one is taken and there is a ``choice``. On a host without IPv6 '' is IPv4."""
        taken: list[Reservation] = []
        for binding in wanted:
            try:
                taken.append((binding, self._binder.bind(binding, self._leads(binding, target))))
            except OSError as exc:
                if not request.host_ip and binding.host_ip == ANY6 and exc.errno in _NO_IPV6:
                    continue
                _give_back(taken)
                if choice and exc.errno == errno.EADDRINUSE:
                    return None
                raise PortUnavailable(
                    _foreign(binding, exc), hint=_reserved(binding.host_port, exc)
                ) from exc
        return taken

    def _clashes(self, wanted: PublishedPort, also: list[PublishedPort]) -> bool:
        held = [binding for rows in self._held.values() for binding, _ in rows]
        return any(
            other.host_port == wanted.host_port
            and other.protocol == wanted.protocol
            and _overlap(other.host_ip, wanted.host_ip)
            for other in (*held, *also)
        )


def _overlap(one: str, other: str) -> bool:
    every = ANY6 if ":" in one else ANY
    return one == other or ((":" in one) == (":" in other) and every in (one, other))


def _give_back(rows: Iterable[Reservation]) -> None:
    for _, kept in rows:
        if kept is not None:
            kept.close()


def _reserved(port: int, error: OSError) -> str | None:
    if error.errno != errno.EACCES:
        return None
    return f"low ports are root's: as root, sysctl net.ipv4.ip_unprivileged_port_start={port}"


def _foreign(port: PublishedPort, error: OSError) -> str:
    number = error.errno or errno.EIO
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    reason = {
        errno.EADDRINUSE: "address already in use",
        errno.EADDRNOTAVAIL: "cannot assign requested address",
    }.get(number, os.strerror(number).lower())
    where = f"{address}:{port.host_port}"
    return (
        f"failed to bind port {where}/{port.protocol}: Error starting userland proxy: "
        f"listen {port.protocol}{6 if ':' in address else 4} {where}: bind: {reason}"
    )


class PortMapper:
    """All published ports of an engine. Not thread safe. ``told`` is for the operator."""

    def __init__(self, binder: PortBinder | None = None) -> None:
        self.told: list[str] = []
        self._ports = PortAllocator(binder)

    def publish(
        self, segment: BridgeNetwork, endpoint: Endpoint, ports: Sequence[PortRequest]
    ) -> list[PublishedPort]:
        """Make ports of a container reachable, all or none of them."""
        known = segment.endpoints.get(endpoint.container_id)
        if known is None or known.endpoint_id != endpoint.endpoint_id:
            raise NotFound(f"container {endpoint.container_name} is not attached")
        if known.ports:
            raise Conflict(f"ports of {endpoint.container_name} are already published")
        bindings = self._ports.reserve(endpoint.container_id, ports, port_target(known))
        segment.endpoints[endpoint.container_id] = msgspec.structs.replace(
            known, ports=tuple(bindings)
        )
        try:
            segment.publish(known, bindings, verb="add")
            self.delete_udp_flows(bindings)
        except JaulaError:
            segment.endpoints[endpoint.container_id] = known
            self._ports.release(endpoint.container_id)
            raise
        return bindings

    def unpublish(self, segments: Collection[BridgeNetwork], container_id: str) -> None:
        """Take back all published ports of a container."""
        bindings = self._ports.release(container_id)
        for segment in segments:
            known = segment.endpoints.get(container_id)
            if known is None or not known.ports or not bindings:
                continue
            segment.endpoints[container_id] = msgspec.structs.replace(known, ports=())
            segment.publish(known, bindings, verb="delete")
            self.delete_udp_flows(bindings)

    def reclaim(self, endpoint: Endpoint) -> Endpoint:
        """Take the ports of a record again; the endpoint as it is if they are held already.

        :raises JaulaError: one is not to be had.
        """
        ports = endpoint.ports
        if ports and self._ports.held(endpoint.container_id) != ports:
            self._ports.release(endpoint.container_id)
            self._ports.reserve(
                endpoint.container_id, map(_as_request, ports), port_target(endpoint)
            )
        return endpoint

    def keep_only(self, endpoints: Sequence[Endpoint]) -> None:
        """Let go of what a former engine took beyond what these have."""
        self._ports.keep_only(
            {row.container_id: port_target(row) for row in endpoints if row.ports}
        )

    def delete_udp_flows(self, ports: Sequence[PublishedPort]) -> None:
        """Let UDP flows to these ports be decided anew."""
        try:
            conntrack.delete_udp_flows(ports)
        except OSError as exc:
            # Not worth a failure: such flows end by themselves when they are silent for 2 minutes.
            self.told.append(f"UDP flows of a former owner of a port may go on: {exc}")

    def close(self) -> None:
        """Give every port back, unless that is to outlive the engine."""
        self._ports.close()


def port_target(endpoint: Endpoint) -> PortTarget:
    """Where ports of a container lead."""
    return PortTarget(endpoint.ipv4, endpoint.ipv6)


def _as_request(binding: PublishedPort) -> PortRequest:
    """Ask again for exactly what was had."""
    return PortRequest(binding.container_port, binding.protocol, binding.host_ip, binding.host_port)
