"""The tables of links, addresses and routes of a network namespace, as rtnetlink(7) shows them.

Numbers come from include/uapi/linux/{rtnetlink,if_link,if_addr}.h; what changes the tables is in
:mod:`jaula.kernel.links`.
"""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass

from jaula.kernel.links import (
    IFA_ADDRESS,
    IFA_LOCAL,
    IFF_UP,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_KIND,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_OPERSTATE,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_TABLE,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    ifaddrmsg,
    ifinfomsg,
    named,
    rtmsg,
)
from jaula.kernel.netlink import Netlink, attributes, text

IF_OPER_UP = 6  # RFC 2863


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the table of links."""

    index: int
    name: str
    flags: int
    mac: str
    mtu: int
    master: int  # 0: none
    parent: int  # the link below; 0: none
    kind: str  # 'veth', 'bridge', ...; '' for hardware and loopback
    operstate: int  # RFC 2863; IF_OPER_UP when it carries frames

    @property
    def up(self) -> bool:
        """Whether it was set up; it carries frames only when ``operstate`` says so."""
        return bool(self.flags & IFF_UP)


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a link; ``family`` is AF_INET or AF_INET6."""

    index: int
    family: int
    address: str
    prefix: int


@dataclass(frozen=True, slots=True)
class Route:
    """One route; ``destination`` is '' for a default route, ``index`` 0 without an interface."""

    family: int
    destination: str
    prefix: int
    gateway: str
    index: int
    table: int


class Rtnetlink(Netlink):
    """A socket of the routing family. Not thread safe."""

    def link(self, name: str) -> Link | None:
        """The link of that name, None if there is none.

        Since Linux 6.8 this also lets the kernel finish a change of carrier that it had put off.
        """
        body = ifinfomsg.pack(0, 0, 0, 0, 0) + named(name)
        found = self.ask(RTM_GETLINK, body, about=f"link {name}", absent=errno.ENODEV)
        return None if found is None else _parse_link(found)

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        body = ifinfomsg.pack(0, 0, 0, 0, 0)
        return [_parse_link(x) for x in self.dump(RTM_GETLINK, body, about="links")]

    def addresses(self) -> list[Address]:
        """Every IPv4 and IPv6 address of the namespace."""
        rows = []
        wanted = ifaddrmsg.pack(0, 0, 0, 0, 0)
        for body in self.dump(RTM_GETADDR, wanted, about="addresses"):
            family, prefix, _, _, index = ifaddrmsg.unpack_from(body)
            found = attributes(body[ifaddrmsg.size :])
            raw = found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))
            rows.append(Address(index, family, _ip(family, raw), prefix))
        return rows

    def routes(self) -> list[Route]:
        """Every IPv4 and IPv6 route of every table of the namespace."""
        rows = []
        wanted = rtmsg.pack(*[0] * 9)
        for body in self.dump(RTM_GETROUTE, wanted, about="routes"):
            family, prefix, _, _, table, _, _, _, _ = rtmsg.unpack_from(body)
            if family not in (socket.AF_INET, socket.AF_INET6):
                continue
            found = attributes(body[rtmsg.size :])
            rows.append(
                Route(
                    family,
                    _ip(family, found.get(RTA_DST, b"")),
                    prefix,
                    _ip(family, found.get(RTA_GATEWAY, b"")),
                    _number(found.get(RTA_OIF)),
                    _number(found.get(RTA_TABLE)) or table,
                )
            )
        return rows


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = ifinfomsg.unpack_from(body)
    found = attributes(body[ifinfomsg.size :])
    return Link(
        index,
        text(found.get(IFLA_IFNAME, b"")),
        flags,
        found.get(IFLA_ADDRESS, b"").hex(":"),
        _number(found.get(IFLA_MTU)),
        _number(found.get(IFLA_MASTER)),
        _number(found.get(IFLA_LINK)),
        text(attributes(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")),
        found.get(IFLA_OPERSTATE, b"\0")[0],
    )


def _ip(family: int, raw: bytes) -> str:
    size = 4 if family == socket.AF_INET else 16
    return socket.inet_ntop(family, raw) if len(raw) == size else ""


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw[:4], sys.byteorder) if raw else 0
