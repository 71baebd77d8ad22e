"""The container's end of a link: addresses, routes and sysctls inside its network namespace.

Without an IPv6 address, IPv6 is disabled on the interface. Otherwise the kernel would accept an
address and a default route from a router advertisement (addrgenmode ``none`` only stops link-local
addresses). With an IPv6 address, router advertisements are ignored.
"""

from __future__ import annotations

import errno
import os
import socket

from jaula.kernel.netlink import Request, in_netns
from jaula.kernel.rtnetlink import (
    Rtnetlink,
    add_address,
    add_default_device_route,
    add_default_route,
    delete_link,
    set_link,
)
from jaula.spec.endpoint_record import Endpoint, Gateways

FAMILIES = (socket.AF_INET, socket.AF_INET6)


def configure(endpoint: Endpoint, netns_fd: int, *, default_route: bool) -> None:
    """Configure the interface that was created in the namespace, and loopback.

    :raises OSError: when the kernel refuses a request.
    """
    with in_netns(netns_fd):
        _set_ipv6(endpoint)
        inside = Rtnetlink()
    with inside:
        link = inside.link(endpoint.interface)
        if link is None:
            raise OSError(errno.ENODEV, f"{endpoint.interface} is not in the namespace")
        inside.send(
            set_link("lo", up=True),
            set_link(link.index, up=True),
            *_addresses(link.index, endpoint),
            *(_default_routes(endpoint, link.index) if default_route else ()),
        )
        if endpoint.ipv6:
            inside.await_local(endpoint.ipv6)


def set_default_routes(gateways: Gateways, netns_fd: int, *, replace: bool) -> None:
    """Set the default routes; ``replace`` those that the namespace has.

    A route by an interface that does not exist, or has another name, is left out.

    :raises OSError: when the kernel refuses a request.
    """
    with Rtnetlink(netns_fd) as inside:
        for family, endpoint in zip(FAMILIES, gateways, strict=True):
            link = inside.link(endpoint.interface) if endpoint is not None else None
            if endpoint is not None and link is not None:
                route = _default_route(endpoint, link.index, family, replace=replace)
                inside.send(*route, ignore=() if replace else (errno.EEXIST,))


def remove(endpoint: Endpoint, netns_fd: int) -> None:
    """Delete the interface if it exists.

    :raises OSError: when the kernel refuses the request.
    """
    with Rtnetlink(netns_fd) as inside:
        inside.send(delete_link(endpoint.interface), ignore=(errno.ENODEV,))


def _set_ipv6(endpoint: Endpoint) -> None:
    if not has_ipv6():
        return
    for name, value in ipv6_settings(has_address=bool(endpoint.ipv6)).items():
        write_sysctl(f"ipv6/conf/{endpoint.interface}/{name}", value)


def ipv6_settings(*, has_address: bool) -> dict[str, str]:
    """Return the IPv6 settings of a container's interface, in the order of their writes. Pure."""
    if not has_address:
        return {"disable_ipv6": "1"}
    names = ("accept_ra", "autoconf", "accept_redirects", "accept_dad", "disable_ipv6")
    return dict.fromkeys(names, "0")


def _addresses(index: int, endpoint: Endpoint) -> list[Request]:
    rows = ((endpoint.ipv4, endpoint.prefix), (endpoint.ipv6, endpoint.prefix6))
    return [add_address(index, address, prefix) for address, prefix in rows if address]


def _default_routes(endpoint: Endpoint, index: int) -> list[Request]:
    return [r for f in FAMILIES for r in _default_route(endpoint, index, f, replace=False)]


def _default_route(endpoint: Endpoint, index: int, family: int, *, replace: bool) -> list[Request]:
    """Return the request for one address family; none if the endpoint has no way out by it."""
    ipv4 = family == socket.AF_INET
    if not (endpoint.routes_ipv4 if ipv4 else endpoint.routes_ipv6):
        return []
    if endpoint.on_link:
        return [add_default_device_route(index, family, replace=replace)]
    return [add_default_route(endpoint.gateway if ipv4 else endpoint.gateway6, replace=replace)]


ROOT = "/proc/sys/net"
"""The network sysctls: those of the calling thread's network namespace."""


def read_sysctl(name: str) -> str:
    """Return the value of a network sysctl such as ``ipv4/ip_forward``, without the newline."""
    with open(f"{ROOT}/{name}", encoding="ascii") as file:
        return file.read().strip()


def write_sysctl(name: str, value: str) -> None:
    """Set a network sysctl.

    :raises OSError: when the kernel refuses the value or has no such sysctl.
    """
    fd = os.open(f"{ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def has_ipv6() -> bool:
    """Return whether this kernel supports IPv6."""
    return os.path.isdir(f"{ROOT}/ipv6")


def ipv6_interfaces() -> list[str]:
    """Return the interfaces of the namespace that have IPv6 sysctls."""
    return [name for name in os.listdir(f"{ROOT}/ipv6/conf") if name not in ("all", "default")]
