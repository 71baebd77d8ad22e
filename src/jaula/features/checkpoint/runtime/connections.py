"""Connections of a restored container in the host's connection tracking.

Egress and listen lists judge the packet that opens a connection, and let those of a tracked one
pass. On another host, or after a restart, the kernel tracks no connection of the container, and
takes its next packet for the first one. If the container sends it to a client, its egress list
refuses it, and the connection ends. So the direction in which each was opened is told first.

Facts: connections by a published port are translated, and their entry is made by the next packet of
the client. So they are left out, and so are those that the container has opened to other subnets.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from jaula.kernel.netlink import Netlink
from jaula.kernel.nfnetlink_conntrack import Flow, add_tcp
from jaula.kernel.nftables import NETLINK_NETFILTER
from jaula.kernel.rtnetlink import Rtnetlink

_ESTABLISHED, _LISTEN = "01", "0A"  # columns of /proc/net/tcp
_FILES = (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6))
_UNTRACKED = (errno.EEXIST, errno.EINVAL)  # it is tracked already; no connection tracking


class _Socket(NamedTuple):
    local: str
    port: int
    peer: str
    peer_port: int
    state: str


def track(pid: int, netns: int, published: Collection[int]) -> None:
    """Add the established connections of process ``pid``'s network namespace ``netns``.

    ``published`` are the TCP ports of the container that the host publishes.

    :raises OSError: when the kernel refuses an entry.
    """
    sockets = list(_read(pid))
    with Rtnetlink(netns) as inside:
        subnets = [
            ipaddress.ip_interface(f"{each.address}/{each.prefix}").network
            for each in inside.addresses()
        ]
    with Netlink(protocol=NETLINK_NETFILTER) as table:
        for flow in flows(sockets, published, subnets):
            table.send(add_tcp(flow), ignore=_UNTRACKED)


def flows(
    sockets: Iterable[_Socket],
    published: Collection[int],
    subnets: Collection[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> Iterator[Flow]:
    """Yield the connections that are not translated, in the direction of their opening. Pure."""
    rows = list(sockets)
    listening = {each.port for each in rows if each.state == _LISTEN}
    for each in rows:
        peer = ipaddress.ip_address(each.peer)
        if each.state != _ESTABLISHED or peer.is_loopback:
            continue
        if each.port in listening:
            if each.port not in published:
                yield Flow(each.peer, each.peer_port, each.local, each.port)
        elif any(peer in subnet for subnet in subnets):
            yield Flow(each.local, each.port, each.peer, each.peer_port)


def _read(pid: int) -> Iterator[_Socket]:
    for name, family in _FILES:
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except FileNotFoundError:
            continue
        for row in rows:
            _, local, peer, state, *_ = row.split()
            yield _Socket(*_address(local, family), *_address(peer, family), state)


def _address(text: str, family: int) -> tuple[str, int]:
    """Return address and port of a column of /proc/net/tcp: words of the host's byte order."""
    address, _, port = text.partition(":")
    words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
    shown = ipaddress.ip_address(socket.inet_ntop(family, b"".join(words)))
    mapped = shown.ipv4_mapped if isinstance(shown, ipaddress.IPv6Address) else None
    return str(mapped or shown), int(port, 16)
