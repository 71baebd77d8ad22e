"""The host's own routes, and the MTU of its default route."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from jaula.kernel.rtnetlink import RT_TABLE_LOCAL, Rtnetlink

DEFAULT_MTU = 1500
MIN_MTU = 576  # RFC 791


def ipv4_networks(links: Rtnetlink) -> list[IPv4Network]:
    """Return the IPv4 networks of the host's routes and interfaces, which no subnet may shadow."""
    return [
        IPv4Network(network, strict=False) for network in _address_prefixes(links, socket.AF_INET)
    ]


def ipv6_networks(links: Rtnetlink) -> list[IPv6Network]:
    """Return the IPv6 networks of the host, without link-local and multicast ones."""
    rows = [
        IPv6Network(network, strict=False) for network in _address_prefixes(links, socket.AF_INET6)
    ]
    return [row for row in rows if not (row.is_link_local or row.is_multicast)]


def _address_prefixes(links: Rtnetlink, family: int) -> Iterator[tuple[str, int]]:
    """Yield the networks of interface addresses and of routes outside the table ``local``."""
    for address in links.addresses():
        if address.family == family:
            yield address.address, address.prefix
    for route in links.routes():
        if route.family == family and route.destination and route.table != RT_TABLE_LOCAL:
            yield route.destination, route.prefix


def uplink_mtu(links: Rtnetlink) -> int:
    """Return the MTU of the host's default route, 1500 at most."""
    indexes = {
        row.index
        for row in links.routes()
        if row.family == socket.AF_INET and not row.destination and row.index
    }
    sizes = [link.mtu for link in links.links() if link.index in indexes]
    return min([DEFAULT_MTU, *(size for size in sizes if size >= MIN_MTU)])
