"""Links, routes and settings of a network namespace, and the settings of a new one."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping

import msgspec

from jaula.kernel.namespaces import CLONE, unshare
from jaula.kernel.rtnetlink import Link, Route, Rtnetlink
from jaula.security.allowed_sysctls import IPC

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


def read_writable_settings(kinds: Collection[str]) -> dict[str, str]:
    """Return the writable sysctls of the calling thread's namespaces by their path.

    ``kinds`` are ``net`` and ``ipc``. A sysctl that no process may write is a counter or a fact.
    """
    paths = [*(_network_paths("net") if "net" in kinds else ()), *(IPC if "ipc" in kinds else ())]
    return {path: value for path in paths if (value := _writable_setting(path)) is not None}


def read_new_settings() -> dict[str, str]:
    """Return the writable sysctls of new namespaces, which the calling thread enters."""
    unshare(CLONE.NEWNET | CLONE.NEWIPC)
    return read_writable_settings(("net", "ipc"))


def _network_paths(directory: str) -> Iterator[str]:
    for root, _, names in os.walk(f"/proc/sys/{directory}"):
        for name in names:
            yield f"{root.removeprefix('/proc/sys/')}/{name}"


def _writable_setting(path: str) -> str | None:
    try:
        with open(f"/proc/sys/{path}", encoding="ascii", errors="replace") as file:
            if not os.fstat(file.fileno()).st_mode & stat.S_IWUSR:
                return None
            return " ".join(file.read().split())
    except OSError:
        return None  # it can only be written, or its module was unloaded
