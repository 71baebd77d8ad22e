"""Links, routes and settings of a network namespace."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jaula.kernel.rtnetlink import Link, Route, Rtnetlink

SETTINGS = ("route_localnet", "accept_local", "proxy_arp")
"""Settings of net.ipv4.conf that let packets in that a host without them drops."""


class NetworkView(msgspec.Struct, frozen=True):
    """``settings`` are values by path below /proc/sys, ``?`` if absent."""

    links: tuple[Link, ...]
    routes: tuple[Route, ...]
    settings: Mapping[str, str]


def read_network() -> NetworkView:
    """Read the network namespace of the calling thread.

    :raises OSError: when the kernel refuses.
    """
    with Rtnetlink() as netlink:
        links, routes = tuple(netlink.links()), tuple(netlink.routes())
    names = ["all", "default", *(link.name for link in links)]
    paths = [f"net/ipv4/conf/{name}/{setting}" for name in names for setting in SETTINGS]
    return NetworkView(links, routes, {path: read_setting(path) for path in paths})


def read_setting(path: str) -> str:
    """Return a sysctl by its path below /proc/sys; ``?`` if it cannot be read."""
    try:
        with open(f"/proc/sys/{path}", encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"
