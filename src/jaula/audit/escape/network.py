"""Attempts to reach what is not on the container's networks. Pure.

A TCP connection is tried without waiting for it: whoever is reached accepts or refuses it within
half a second, and both are answers. Where a packet filter drops it, there is none.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import msgspec

from jaula.audit.escape.attempts import REFUSED, Attempt, call
from jaula.audit.escape.program import Entry

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
    """What the container's networks give it.

    ``alone``: nothing but its networks' own addresses. ``host``: the flag for which it is in the
    host's or another one's network. ``ipv6``: what gives it IPv6.
    """

    alone: bool = False
    host: str | None = None
    ipv6: str | None = None


def unix_address(name: bytes) -> bytes:
    """``struct sockaddr_un``; a name that begins with a zero byte is abstract."""
    return struct.pack("<H", AF_UNIX) + name


def inet_address(address: Sequence[int], port: int) -> bytes:
    """``struct sockaddr_in``."""
    return struct.pack("<H", AF_INET) + struct.pack(">HBBBB", port, *address) + bytes(8)


def inet6_address(address: bytes, port: int) -> bytes:
    """``struct sockaddr_in6``."""
    return struct.pack("<H", AF_INET6) + struct.pack(">HI", port, 0) + address + bytes(4)


def tcp_attempt(name: str, address: Sequence[int], port: int, relaxed_by: str | None) -> Attempt:
    """A TCP connection to an address from which no answer may come."""
    place = inet_address(address, port)
    steps = (
        call("socket", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0),
        call("connect", 3, place, len(place)),
        call("poll", struct.pack("<iHH", 3, POLLOUT, 0), 1, POLL_TIMEOUT),
        call("connect", 3, place, len(place)),
    )
    return Attempt(group="network", name=name, steps=steps, refusals=SILENT, relaxed_by=relaxed_by,
                   continue_on=frozenset({errno.EINPROGRESS}))  # fmt: skip


def network(abstract: bytes, port: int, around: NetworkTargets) -> list[Attempt]:
    """The host's loopback, its abstract sockets, and IPv6; everything outside, where ``alone``."""
    unix = unix_address(abstract)
    beyond = inet6_address(bytes.fromhex("20010db8" + "0" * 22 + "01"), DISCARD)
    found = [
        _connect("abstract socket of the host", (AF_UNIX, SOCK_STREAM), unix, around.host),
        _connect("loopback of the host", (AF_INET, SOCK_STREAM),
                 inet_address((127, 0, 0, 1), port), around.host),
        _connect("IPv6 to outside", (AF_INET6, SOCK_DGRAM), beyond, around.ipv6 or around.host),
    ]  # fmt: skip
    if around.alone:
        found += [
            tcp_attempt("metadata address", METADATA, HTTP, None),
            tcp_attempt("address outside", OUTSIDE, DISCARD, None),
        ]
    return found


def _connect(name: str, kind: tuple[int, int], address: bytes, relaxed_by: str | None) -> Attempt:
    steps: tuple[Entry, ...] = (
        call("socket", *kind, 0),
        call("connect", 3, address, len(address)),
    )
    return Attempt(
        group="network", name=name, refusals=UNREACHED, relaxed_by=relaxed_by, steps=steps
    )


def neighbour(address: str, host: str | None) -> Attempt:
    """A container of another network: also a refusal of the port would be an answer of its."""
    parts = tuple(int(part) for part in address.split("."))
    return tcp_attempt("a container of another network", parts, DISCARD, host)
