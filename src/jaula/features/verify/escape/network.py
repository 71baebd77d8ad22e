"""Attempts to reach addresses outside the container's networks. Pure.

A TCP connection is made without blocking: a reachable peer accepts or refuses it within half a
second, and both prove that it is reachable. If a packet filter drops the packets, there is no
result.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import msgspec

from jaula.features.verify.escape.attempts import REFUSED, Attempt, call
from jaula.features.verify.escape.program import Entry

UNREACHED = frozenset(
    {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL,
     errno.EAFNOSUPPORT, errno.EINVAL, errno.ENOENT, *REFUSED}
)  # fmt: skip
SILENT = (UNREACHED - {errno.ECONNREFUSED}) | {errno.EALREADY}
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_DGRAM, SOCK_NONBLOCK = 1, 2, 0o4000
POLLOUT = 4
POLL_TIMEOUT = 500  # milliseconds
METADATA, OUTSIDE = (169, 254, 169, 254), (192, 0, 2, 1)
DISCARD, HTTP = 9, 80


class NetworkTargets(msgspec.Struct, frozen=True, kw_only=True):
    """Reachability by the container's networks.

    ``alone``: only addresses of its own networks. ``host``: the flag that joins the network of the
    host or another container. ``ipv6``: the reason that it has IPv6.
    """

    alone: bool = False
    host: str | None = None
    ipv6: str | None = None


def unix_address(name: bytes) -> bytes:
    """Encode ``struct sockaddr_un``; a name that begins with NUL is abstract."""
    return struct.pack("<H", AF_UNIX) + name


def inet_address(address: Sequence[int], port: int) -> bytes:
    """Encode ``struct sockaddr_in``."""
    return struct.pack("<H", AF_INET) + struct.pack(">HBBBB", port, *address) + bytes(8)


def inet6_address(address: bytes, port: int) -> bytes:
    """Encode ``struct sockaddr_in6``."""
    return struct.pack("<H", AF_INET6) + struct.pack(">HI", port, 0) + address + bytes(4)


def tcp_attempt(name: str, address: Sequence[int], port: int, relaxed_by: str | None) -> Attempt:
    """Return an attempt of a TCP connection to an address that must not answer."""
    sockaddr = inet_address(address, port)
    steps = (
        call("socket", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0),
        call("connect", 3, sockaddr, len(sockaddr)),
        call("poll", struct.pack("<iHH", 3, POLLOUT, 0), 1, POLL_TIMEOUT),
        call("connect", 3, sockaddr, len(sockaddr)),
    )
    return Attempt(group="network", name=name, steps=steps, refusals=SILENT, relaxed_by=relaxed_by,
                   continue_on=frozenset({errno.EINPROGRESS}))  # fmt: skip


def network(abstract: bytes, port: int, targets: NetworkTargets) -> list[Attempt]:
    """Return attempts on the host's loopback, abstract sockets and IPv6.

    With ``alone`` also on any address outside.
    """
    unix = unix_address(abstract)
    outside6 = inet6_address(bytes.fromhex("20010db8" + "0" * 22 + "01"), DISCARD)
    attempts = [
        _connect("abstract socket of the host", (AF_UNIX, SOCK_STREAM), unix, targets.host),
        _connect("loopback of the host", (AF_INET, SOCK_STREAM),
                 inet_address((127, 0, 0, 1), port), targets.host),
        _connect("IPv6 to outside", (AF_INET6, SOCK_DGRAM), outside6, targets.ipv6 or targets.host),
    ]  # fmt: skip
    if targets.alone:
        attempts += [
            tcp_attempt("metadata address", METADATA, HTTP, None),
            tcp_attempt("address outside", OUTSIDE, DISCARD, None),
        ]
    return attempts


def _connect(name: str, kind: tuple[int, int], address: bytes, relaxed_by: str | None) -> Attempt:
    steps: tuple[Entry, ...] = (
        call("socket", *kind, 0),
        call("connect", 3, address, len(address)),
    )
    return Attempt(
        group="network", name=name, refusals=UNREACHED, relaxed_by=relaxed_by, steps=steps
    )


def neighbour(address: str, host: str | None) -> Attempt:
    """Return an attempt on a container of another network.

    A refusal of the port is an answer too.
    """
    parts = tuple(int(part) for part in address.split("."))
    return tcp_attempt("a container of another network", parts, DISCARD, host)
