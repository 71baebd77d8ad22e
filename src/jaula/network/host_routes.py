"""What the host itself routes, and by which size of packets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from jaula.kernel.links import RT_TABLE_LOCAL
from jaula.kernel.rtnetlink import Rtnetlink

DEFAULT_MTU = 1500
MIN_MTU = 576  # RFC 791


def ipv4_networks(links: Rtnetlink) -> list[IPv4Network]:
    """What the host routes or has an address in, so that no subnet shadows it."""
    return [IPv4Network(found, strict=False) for found in _known(links, socket.AF_INET)]


def ipv6_networks(links: Rtnetlink) -> list[IPv6Network]:
    """The same for IPv6, without what every interface has."""
    rows = [IPv6Network(found, strict=False) for found in _known(links, socket.AF_INET6)]
    return [row for row in rows if not (row.is_link_local or row.is_multicast)]


def _known(links: Rtnetlink, family: int) -> Iterator[tuple[str, int]]:
    """Address and prefix of each interface, and of each route that the main tables have."""
    for address in links.addresses():
        if address.family == family:
            yield address.address, address.prefix
    for route in links.routes():
        if route.family == family and route.destination and route.table != RT_TABLE_LOCAL:
            yield route.destination, route.prefix


def uplink_mtu(links: Rtnetlink) -> int:
    """1500, or less where the host's default route has less."""
    indexes = {
        row.index
        for row in links.routes()
        if row.family == socket.AF_INET and not row.destination and row.index
    }
    sizes = [link.mtu for link in links.links() if link.index in indexes]
    return min([DEFAULT_MTU, *(size for size in sizes if size >= MIN_MTU)])
