"""What the host itself routes, and by which size of packets."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network, IPv6Network

from jaula.kernel.links import RT_TABLE_LOCAL
from jaula.kernel.rtnetlink import Rtnetlink

DEFAULT_MTU = 1500
LEAST_MTU = 576  # RFC 791


def networks(links: Rtnetlink) -> list[IPv4Network]:
    """What the host routes or has an address in, so that no subnet shadows it."""
    rows = [
        IPv4Network((row.address, row.prefix), strict=False)
        for row in links.addresses()
        if row.family == socket.AF_INET
    ]
    rows += [
        IPv4Network((row.destination, row.prefix), strict=False)
        for row in links.routes()
        if row.family == socket.AF_INET and row.destination and row.table != RT_TABLE_LOCAL
    ]
    return rows


def networks6(links: Rtnetlink) -> list[IPv6Network]:
    """The same for IPv6, without what every interface has."""
    rows = [
        IPv6Network((row.address, row.prefix), strict=False)
        for row in links.addresses()
        if row.family == socket.AF_INET6
    ]
    rows += [
        IPv6Network((row.destination, row.prefix), strict=False)
        for row in links.routes()
        if row.family == socket.AF_INET6 and row.destination and row.table != RT_TABLE_LOCAL
    ]
    return [row for row in rows if not (row.is_link_local or row.is_multicast)]


def uplink_mtu(links: Rtnetlink) -> int:
    """1500, or less where the host's default route has less."""
    indexes = {
        row.index
        for row in links.routes()
        if row.family == socket.AF_INET and not row.destination and row.index
    }
    sizes = [link.mtu for link in links.links() if link.index in indexes]
    return min([DEFAULT_MTU, *(size for size in sizes if size >= LEAST_MTU)])
