"""Egress lists: the destinations that a container may connect to. Pure.

An item is ``PROTOCOL:HOST:PORT``, or ``dns:NAME``. The protocol is ``tcp`` or ``udp``. The host is
an address, a network or a DNS name. An IPv6 address may be in brackets. The port is a number, a
range ``FIRST-LAST``, or ``*`` for any port. An empty list allows no connection.

A container may ask the engine's DNS server for the names of its list only. ``dns:NAME`` is a name
that it may ask for without a connection, and ``dns:*`` permits all names.

    tcp:192.0.2.10:443    udp:10.0.0.0/8:123    tcp:[2001:db8::1]:8000-8010    tcp:example.org:443
    dns:example.org       dns:*
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from jaula.errors import InvalidRequest

MAX_ITEMS = 1024  # of one container
DNS = "dns"  # protocol of an item that only permits queries
_HINT = (
    "PROTOCOL:HOST:PORT, such as tcp:192.0.2.0/24:443, udp:[2001:db8::1]:53 or tcp:example.org:443;"
    " or dns:NAME"
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class Destination(NamedTuple):
    """One item. ``network`` is None for a name, and ``name`` is '' for a network."""

    protocol: str  # tcp, udp or dns
    network: IPv4Network | IPv6Network | None
    name: str  # lower case, without the final dot; '*' in ``dns:*``
    first: int
    last: int

    def __str__(self) -> str:
        if self.protocol == DNS:
            return f"{DNS}:{self.name}"
        host = str(self.network) if self.network is not None else self.name
        if self.network is not None and self.network.num_addresses == 1:
            host = str(self.network.network_address)
        port = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        if (self.first, self.last) == (0, 65535):
            port = "*"
        return f"{self.protocol}:{f'[{host}]' if ':' in host else host}:{port}"


def parse(items: Sequence[str]) -> tuple[Destination, ...]:
    """Return the destinations of a list without duplicates.

    :raises InvalidRequest: when an item is malformed, or there are too many.
    """
    if len(items) > MAX_ITEMS:
        raise InvalidRequest(f"egress list: {len(items)} items; at most {MAX_ITEMS} are allowed")
    return tuple(dict.fromkeys(parse_item(item) for item in items))


def parse_item(item: str) -> Destination:
    """Return one destination.

    :raises InvalidRequest: when the item is malformed.
    """
    protocol, colon, rest = item.partition(":")
    if protocol == DNS and colon:
        name = rest.lower()
        return Destination(DNS, None, name if name == "*" else _name(name), 0, 65535)
    host, second, port = rest.rpartition(":")
    if protocol not in ("tcp", "udp") or not colon or not second or not host:
        raise InvalidRequest(f"egress list: invalid item {item[:80]!r}", hint=_HINT)
    first, last = _ports(port, item)
    if host.startswith("[") and "]" in host:
        address, _, prefix = host[1:].partition("]")
        host = address + prefix
    host = host.lower()
    try:
        if "%" in host:  # a zone: arbitrary text after an address
            raise ValueError(host)
        return Destination(protocol, ip_network(host, strict=False), "", first, last)
    except ValueError:
        return Destination(protocol, None, _name(host), first, last)


def _name(host: str) -> str:
    name = host.removesuffix(".")
    labels = name.split(".")
    if (
        len(name) > 253
        or not all(_LABEL.fullmatch(label) for label in labels)
        or labels[-1].isdigit()
    ):
        raise InvalidRequest(
            f"egress list: {host[:80]!r} is not an address, a network or a DNS name", hint=_HINT
        )
    return name


def permits_query(items: Sequence[Destination], name: str) -> bool:
    """Return whether a list permits a DNS query for a name in lower case; '' is not a plain one."""
    return any(item.name == "*" or (name and item.name == name) for item in items)


def includes(allowed: Destination, wanted: Destination) -> bool:
    """Return whether an item allows all that another one does."""
    if wanted.protocol == DNS:
        return allowed == wanted or (wanted.name != "*" and permits_query((allowed,), wanted.name))
    if allowed.protocol != wanted.protocol or allowed.name != wanted.name:
        return False
    if not allowed.first <= wanted.first <= wanted.last <= allowed.last:
        return False
    if allowed.network is None or wanted.network is None:
        return allowed.network is wanted.network
    return (
        allowed.network.version == wanted.network.version
        and int(allowed.network.network_address) <= int(wanted.network.network_address)
        and int(wanted.network.broadcast_address) <= int(allowed.network.broadcast_address)
    )


def _ports(text: str, item: str) -> tuple[int, int]:
    if text == "*":
        return 0, 65535
    first, dash, last = text.partition("-")
    numbers = (first, last) if dash else (first, first)
    if all(n.isascii() and n.isdigit() and len(n) <= 5 for n in numbers):
        low, high = int(numbers[0]), int(numbers[1])
        if 1 <= low <= high <= 65535:
            return low, high
    raise InvalidRequest(f"egress list: invalid port {text[:20]!r} in {item[:80]!r}", hint=_HINT)
