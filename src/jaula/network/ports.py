"""Ports of the host that are reserved for containers.

A published port is translated by the firewall, so nothing needs to listen on it. But a socket is
really bound to it, in the engine, so that any other program that wants the port is told
EADDRINUSE, and so that a port which another program has is found out before it is taken away
from it. Messages are Docker's, since clients look for their words.

Facts about bind(2): two TCP sockets with SO_REUSEADDR may bind one port while neither listens. The
option is needed to pass connections in TIME_WAIT of a former owner. So it is tried without, then
with, and cleared after the bind: then another program's listen(2) fails.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Protocol

import msgspec

from jaula.errors import InvalidRequest, JaulaError, Unsupported
from jaula.spec.endpoint import PublishedPort

ANY = "0.0.0.0"
"""Every IPv4 address of the host."""
PROTOCOLS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "sctp": socket.SOCK_SEQPACKET}
DYNAMIC = range(49153, 65536)
"""Docker's range for a port that the user did not choose."""


class PortRequest(msgspec.Struct, frozen=True):
    """A port to publish. ``host_port`` None asks for a free one.

    ``host_ip`` '' is every IPv4 address of the host. With ``host_port_end`` the first free port
    of that inclusive range is taken.
    """

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int | None = None
    host_port_end: int | None = None


class PortUnavailable(JaulaError):
    """A host port is taken, by another container or by another program."""


def check(request: PortRequest) -> PortRequest:
    """The request with ``host_ip`` filled in; InvalidRequest if it makes no sense."""
    if request.protocol not in PROTOCOLS:
        raise InvalidRequest(f"invalid protocol {request.protocol!r}", hint="tcp, udp or sctp")
    first, last = request.host_port, request.host_port_end
    for number in (request.container_port, first or 1, last or 1):
        if not 0 < number < 65536:
            raise InvalidRequest(f"invalid port {number}", hint="ports are from 1 to 65535")
    if last is not None and (first is None or last < first):
        raise InvalidRequest(f"invalid range of host ports {first}-{last}")
    if ":" in request.host_ip:
        raise Unsupported(
            f"cannot publish on {request.host_ip}: the default network has no IPv6",
            hint="name an IPv4 address of the host",
        )
    try:
        address = IPv4Address(request.host_ip or ANY)
    except AddressValueError as exc:
        raise InvalidRequest(f"invalid host address {request.host_ip!r}") from exc
    return PortRequest(request.container_port, request.protocol, str(address), first, last)


def dynamic_ports(local_range: range) -> list[range]:
    """Where to look for a free port: Docker's range without the kernel's own, if that leaves any.

    ``local_range`` is ip_local_port_range, from which the kernel takes ports of outgoing
    connections.
    """
    below = range(DYNAMIC.start, max(DYNAMIC.start, min(DYNAMIC.stop, local_range.start)))
    above = range(min(DYNAMIC.stop, max(DYNAMIC.start, local_range.stop)), DYNAMIC.stop)
    left = [part for part in (below, above) if part]
    return left if sum(map(len, left)) >= 1024 else [DYNAMIC]


def read_local_range(path: str = "/proc/sys/net/ipv4/ip_local_port_range") -> range:
    """The kernel's ports for outgoing connections."""
    with open(path, encoding="ascii") as file:
        first, last = file.read().split()
    return range(int(first), int(last) + 1)


def bind(protocol: str, address: str, port: int) -> socket.socket | None:
    """A socket that keeps a port from others; None where the kernel lacks the protocol.

    Raises ``OSError`` (EADDRINUSE, EADDRNOTAVAIL) if the port is not to be had.
    """
    try:
        kept = socket.socket(socket.AF_INET, PROTOCOLS[protocol], _number(protocol))
    except OSError as exc:
        if exc.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None
        raise
    try:
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


class Kept(Protocol):
    """What keeps a port: a socket, or somebody who has it."""

    def close(self) -> None:
        """Give the port back."""


class Binder(Protocol):
    """Takes ports of the host. ``outlives`` says that they stay taken when the engine ends."""

    outlives: bool

    def bind(self, port: PublishedPort, target: str) -> Kept | None:
        """Keep a port; what arrives there is for the container at the address ``target``.

        None where the kernel lacks the protocol. Raises ``OSError`` if the port is not to be had.
        """

    def keep_only(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Let go of what a former engine has taken beyond these ports and targets."""


class OwnNamespace:
    """Ports of the network namespace that we are in; the firewall sends on what arrives."""

    outlives = False

    def bind(self, port: PublishedPort, target: str) -> Kept | None:
        """A socket that is bound there."""
        return bind(port.protocol, port.host_ip, port.host_port)

    def keep_only(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        """Nothing outlives an engine."""


class Reservations:
    """Every host port of one engine, by the container that has it."""

    def __init__(self, binder: Binder | None = None) -> None:
        self._binder = binder or OwnNamespace()
        self._held: dict[str, list[tuple[PublishedPort, Kept | None]]] = {}

    def reserve(
        self, container_id: str, requests: Iterable[PortRequest], target: str = ""
    ) -> list[PublishedPort]:
        """Take the ports of one container, all or none. ``target`` is the container's address.

        Raises ``PortUnavailable`` with the part of Docker's message that follows
        ``driver failed programming external connectivity on endpoint NAME (ID):``.
        """
        taken: list[tuple[PublishedPort, Kept | None]] = []
        try:
            for request in map(check, requests):
                taken.append(self._one(request, [b for b, _ in taken], target))
        except (JaulaError, OSError):
            for _, kept in taken:
                if kept is not None:
                    kept.close()
            raise
        self._held.setdefault(container_id, []).extend(taken)
        return [binding for binding, _ in taken]

    def release(self, container_id: str) -> list[PublishedPort]:
        """Give all ports of a container back and say which they were."""
        rows = self._held.pop(container_id, [])
        for _, kept in rows:
            if kept is not None:
                kept.close()
        return [binding for binding, _ in rows]

    def held(self, container_id: str) -> tuple[PublishedPort, ...]:
        return tuple(binding for binding, _ in self._held.get(container_id, ()))

    def keep_only(self, targets: Mapping[str, str]) -> None:
        """Let go of what was taken beyond what is held now. ``targets``: address by container."""
        self._binder.keep_only(
            (binding, targets[container_id])
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
        self, request: PortRequest, also: list[PublishedPort], target: str
    ) -> tuple[PublishedPort, Kept | None]:
        choice = bool(request.host_port_end) or not request.host_port
        address = request.host_ip
        for port in _candidates(request):
            binding = PublishedPort(request.container_port, request.protocol, address, port)
            if self._clashes(binding, also):
                if choice:
                    continue
                raise PortUnavailable(
                    f"Bind for {address}:{port} failed: port is already allocated"
                )
            try:
                return binding, self._binder.bind(binding, target)
            except OSError as exc:
                if choice and exc.errno == errno.EADDRINUSE:
                    continue
                raise PortUnavailable(
                    _foreign(request, port, exc), hint=_reserved(port, exc)
                ) from exc
        raise PortUnavailable(
            f"Bind for {address}:{request.host_port or 0} failed: all ports are allocated"
        )

    def _clashes(self, wanted: PublishedPort, also: list[PublishedPort]) -> bool:
        held = [binding for rows in self._held.values() for binding, _ in rows]
        return any(
            other.host_port == wanted.host_port
            and other.protocol == wanted.protocol
            and (ANY in (other.host_ip, wanted.host_ip) or other.host_ip == wanted.host_ip)
            for other in (*held, *also)
        )


def _candidates(request: PortRequest) -> Iterator[int]:
    if request.host_port:
        yield from range(request.host_port, (request.host_port_end or request.host_port) + 1)
        return
    ranges = dynamic_ports(read_local_range())
    start = int.from_bytes(os.urandom(4), "big")  # spreads the searches of several engines
    for part in ranges:
        for offset in range(len(part)):
            yield part[(start + offset) % len(part)]


def _reserved(port: int, error: OSError) -> str | None:
    if error.errno != errno.EACCES:
        return None
    return f"low ports are root's: as root, sysctl net.ipv4.ip_unprivileged_port_start={port}"


def _foreign(request: PortRequest, port: int, error: OSError) -> str:
    number = error.errno or errno.EIO
    address, protocol = request.host_ip, request.protocol
    reason = {
        errno.EADDRINUSE: "address already in use",
        errno.EADDRNOTAVAIL: "cannot assign requested address",
    }.get(number, os.strerror(number).lower())
    return (
        f"failed to bind port {address}:{port}/{protocol}: Error starting userland proxy: "
        f"listen {protocol}4 {address}:{port}: bind: {reason}"
    )
