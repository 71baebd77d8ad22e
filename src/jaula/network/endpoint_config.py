"""A container's side of a link: its addresses and routes, set inside its network namespace.

Without an IPv6 address IPv6 is switched off on the interface: it would still take one, and a
default route, from a router advertisement (addrgenmode 'none' stops link-local ones only). With
one, advertisements are not listened to.


Settings under /proc/sys/net: those of the calling thread's network namespace."""

from __future__ import annotations

import errno
import os
import socket

from jaula.kernel.links import (
    add_address,
    add_default_route,
    add_default_route_on,
    delete_link,
    set_link,
)
from jaula.kernel.netlink import Request, visiting
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.spec.endpoint import Endpoint


def configure(endpoint: Endpoint, netns_fd: int, *, default_route: bool) -> None:
    """Set up the interface that was born there, and loopback. Raises ``OSError``."""
    with visiting(netns_fd):
        _set_ipv6(endpoint)
        inside = Rtnetlink()
    with inside:
        link = inside.link(endpoint.interface)
        if link is None:
            raise OSError(errno.ENODEV, f"{endpoint.interface} is gone from the namespace")
        inside.send(
            set_link("lo", up=True),
            set_link(link.index, up=True),
            add_address(link.index, endpoint.ipv4, endpoint.prefix),
            *_address6(link.index, endpoint),
            *(_default_routes(endpoint, link.index) if default_route else ()),
        )


def set_default_route(endpoint: Endpoint, netns_fd: int) -> None:
    """Make this interface the one of the default routes, if there is none. Raises ``OSError``."""
    with Rtnetlink(netns_fd) as inside:
        link = inside.link(endpoint.interface)
        if link is not None:
            inside.send(*_default_routes(endpoint, link.index), ignore=(errno.EEXIST,))


def remove(endpoint: Endpoint, netns_fd: int) -> None:
    """Remove the interface, if it is still there. Raises ``OSError``."""
    with Rtnetlink(netns_fd) as inside:
        inside.send(delete_link(endpoint.interface), ignore=(errno.ENODEV,))


def _set_ipv6(endpoint: Endpoint) -> None:
    if not has_ipv6():
        return
    own = f"ipv6/conf/{endpoint.interface}"
    if endpoint.ipv6:
        for name in ("accept_ra", "autoconf", "accept_redirects", "accept_dad"):
            write_sysctl(f"{own}/{name}", "0")
    write_sysctl(f"{own}/disable_ipv6", "0" if endpoint.ipv6 else "1")


def _address6(index: int, endpoint: Endpoint) -> tuple[Request, ...]:
    return (add_address(index, endpoint.ipv6, endpoint.prefix6),) if endpoint.ipv6 else ()


def _default_routes(endpoint: Endpoint, index: int) -> list[Request]:
    if endpoint.on_link:
        families = (socket.AF_INET, *([socket.AF_INET6] if endpoint.ipv6 else []))
        return [add_default_route_on(index, family) for family in families]
    return [add_default_route(gw) for gw in (endpoint.gateway, endpoint.gateway6) if gw]


ROOT = "/proc/sys/net"


def read_sysctl(name: str) -> str:
    """The value of ``ipv4/ip_forward`` and the like, without its line end."""
    with open(f"{ROOT}/{name}", encoding="ascii") as file:
        return file.read().strip()


def write_sysctl(name: str, value: str) -> None:
    """Set a value; OSError if the kernel refuses it or has no such setting."""
    fd = os.open(f"{ROOT}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def has_ipv6() -> bool:
    """Whether this kernel has IPv6 at all."""
    return os.path.isdir(f"{ROOT}/ipv6")


def ipv6_interfaces() -> list[str]:
    """The interfaces of the namespace that have settings of IPv6."""
    return [name for name in os.listdir(f"{ROOT}/ipv6/conf") if name not in ("all", "default")]
