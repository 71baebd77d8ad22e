"""What is published: requests for ports of the host, and the socket that keeps one from others.

Facts about bind(2): two TCP sockets with SO_REUSEADDR may bind one port while neither listens. The
option is needed to pass connections in TIME_WAIT of a former owner. So it is tried without, then
with, and cleared after the bind: then another program's listen(2) fails.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.spec.endpoint import ANY, ANY6

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
