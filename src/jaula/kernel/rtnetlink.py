"""rtnetlink(7): requests that change links, addresses and routes, and the tables of them."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass

from jaula.kernel.netlink import NLM_F, Netlink, Request, attribute, attributes, nest, text

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_OPERSTATE = 1, 3, 4, 5, 10, 16
IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 18, 26, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 4, 5
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
IFLA_MACVLAN_MODE, IFLA_VLAN_ID = 1, 1
IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS = 1, 2
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_F_NODAD = 1, 2, 4, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RT_TABLE_LOCAL, RTPROT_BOOT, RTN_UNICAST = 254, 255, 3, 1
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
IFF_UP = 1
IF_OPER_UP = 6  # RFC 2863

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}

ifinfomsg = struct.Struct("=BxHiII")  # family, type, index, flags, change
ifaddrmsg = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
rtmsg = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags


def mac_bytes(mac: str) -> bytes:
    """``02:42:ac:11:00:02`` as six bytes; ValueError for anything else."""
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6 or len(mac) != 17:
        raise ValueError(f"{mac!r} is not a MAC address")
    return raw


def ifname_attribute(name: str) -> bytes:
    """The attribute with an interface's name; OSError for what cannot be one."""
    raw = os.fsencode(name)
    if not 0 < len(raw) < 16 or b"/" in raw or b"\0" in raw:
        raise OSError(errno.EINVAL, f"rtnetlink: {name!r} is not an interface name")
    return attribute(IFLA_IFNAME, raw + b"\0")


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def add_bridge(name: str, *, mac: str, mtu: int, group: int = 0) -> Request:
    """A new bridge, down, of an interface group; EEXIST if the name is taken."""
    body = (
        ifinfomsg.pack(0, 0, 0, 0, 0)
        + ifname_attribute(name)
        + attribute(IFLA_ADDRESS, mac_bytes(mac))
        + attribute(IFLA_MTU, _u32(mtu))
        + (attribute(IFLA_GROUP, _u32(group)) if group else b"")
        + nest(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"bridge\0"))
    )
    return Request(RTM_NEWLINK, NLM_F.CREATE | NLM_F.EXCL, body, f"add bridge {name}")


def add_dummy(name: str) -> Request:
    """A new link that leads nowhere, down; EEXIST if the name is taken."""
    return _add(name, "dummy", b"")


def add_vlan(name: str, *, parent: int, tag: int) -> Request:
    """A new link for the frames of an IEEE 802.1Q tag (1 to 4094) on the link ``parent``."""
    return _add(name, "vlan", attribute(IFLA_VLAN_ID, tag.to_bytes(2, sys.byteorder)), parent)


def add_macvlan(
    name: str, *, parent: int, netns: int, mode: str, mac: str | None, mtu: int = 0
) -> Request:
    """A link with a MAC of its own on ``parent``, born in the namespace of ``netns``, down."""
    data = attribute(IFLA_MACVLAN_MODE, _u32(MACVLAN_MODES[mode]))
    return _add(name, "macvlan", data, parent, netns, mac, mtu)


def add_ipvlan(
    name: str, *, parent: int, netns: int, mode: str, flag: str, mtu: int = 0
) -> Request:
    """A link with the MAC of ``parent``, told apart by its addresses, born like macvlan's."""
    data = attribute(IFLA_IPVLAN_MODE, IPVLAN_MODES[mode].to_bytes(2, sys.byteorder))
    data += attribute(IFLA_IPVLAN_FLAGS, IPVLAN_FLAGS[flag].to_bytes(2, sys.byteorder))
    return _add(name, "ipvlan", data, parent, netns, None, mtu)


def _add(
    name: str,
    kind: str,
    data: bytes,
    parent: int = 0,
    netns: int | None = None,
    mac: str | None = None,
    mtu: int = 0,
) -> Request:
    body = ifinfomsg.pack(0, 0, 0, 0, 0) + ifname_attribute(name)
    if parent:
        body += attribute(IFLA_LINK, _u32(parent))
    if netns is not None:
        body += attribute(IFLA_NET_NS_FD, _u32(netns))
    if mac is not None:
        body += attribute(IFLA_ADDRESS, mac_bytes(mac))
    if mtu:
        body += attribute(IFLA_MTU, _u32(mtu))
    info = attribute(IFLA_INFO_KIND, kind.encode() + b"\0")
    body += nest(IFLA_LINKINFO, info, *([nest(IFLA_INFO_DATA, data)] if data else []))
    return Request(RTM_NEWLINK, NLM_F.CREATE | NLM_F.EXCL, body, f"add {kind} {name}")


def add_veth(
    name: str,
    *,
    mtu: int,
    peer_name: str,
    master: int = 0,
    group: int = 0,
    peer_netns: int | None = None,
    peer_mac: str | None = None,
) -> Request:
    """A veth pair, both ends down; the peer is born in the namespace of ``peer_netns``.

    ``master`` is the index of a bridge for the near end, ``group`` its interface group.
    """
    peer = (
        ifinfomsg.pack(0, 0, 0, 0, 0) + ifname_attribute(peer_name) + attribute(IFLA_MTU, _u32(mtu))
    )
    if peer_mac is not None:
        peer += attribute(IFLA_ADDRESS, mac_bytes(peer_mac))
    if peer_netns is not None:
        peer += attribute(IFLA_NET_NS_FD, _u32(peer_netns))
    body = ifinfomsg.pack(0, 0, 0, 0, 0) + ifname_attribute(name) + attribute(IFLA_MTU, _u32(mtu))
    if master:
        body += attribute(IFLA_MASTER, _u32(master))
    if group:
        body += attribute(IFLA_GROUP, _u32(group))
    body += nest(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_KIND, b"veth\0"),
        nest(IFLA_INFO_DATA, nest(VETH_INFO_PEER, peer)),
    )
    return Request(RTM_NEWLINK, NLM_F.CREATE | NLM_F.EXCL, body, f"add veth {name}")


def set_link(
    link: str | int,
    *,
    up: bool | None = None,
    master: int | None = None,
    mtu: int | None = None,
    mac: str | None = None,
    name: str | None = None,
    group: int | None = None,
    no_link_local: bool = False,
    hairpin: bool | None = None,
    isolated: bool | None = None,
) -> Request:
    """Change a link named by its name or index; what is None stays.

    ``no_link_local`` sets the IPv6 address generation mode 'none', to be asked before ``up``.
    ``hairpin`` and ``isolated`` are for a port of a bridge: whether a frame may leave where it came
    in, and whether none goes between it and other isolated ports.
    """
    index = link if isinstance(link, int) else 0
    change = IFF_UP if up is not None else 0
    body = ifinfomsg.pack(0, 0, index, IFF_UP if up else 0, change)
    if isinstance(link, str):
        body += ifname_attribute(link)
    elif name is not None:
        body += ifname_attribute(name)
    if master is not None:
        body += attribute(IFLA_MASTER, _u32(master))
    if mtu is not None:
        body += attribute(IFLA_MTU, _u32(mtu))
    if mac is not None:
        body += attribute(IFLA_ADDRESS, mac_bytes(mac))
    if group is not None:
        body += attribute(IFLA_GROUP, _u32(group))
    if no_link_local:
        mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
        body += nest(IFLA_AF_SPEC, nest(socket.AF_INET6, mode))
    port = b"".join(
        attribute(number, bytes([value]))
        for number, value in ((IFLA_BRPORT_MODE, hairpin), (IFLA_BRPORT_ISOLATED, isolated))
        if value is not None
    )
    if port:
        slave = attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0") + nest(IFLA_INFO_SLAVE_DATA, port)
        body += nest(IFLA_LINKINFO, slave)
    kind = RTM_NEWLINK if port else RTM_SETLINK  # only the former reads slave data
    return Request(kind, 0, body, f"set link {link}")


def delete_link(name: str) -> Request:
    """Remove a link, and with one end of a veth the other; ENODEV if there is none."""
    return Request(
        RTM_DELLINK,
        0,
        ifinfomsg.pack(0, 0, 0, 0, 0) + ifname_attribute(name),
        f"delete link {name}",
    )


def add_address(index: int, address: str, prefix: int) -> Request:
    """An address, for IPv4 with its broadcast address; EEXIST if the link has it.

    An IPv6 address is usable at once: nobody is asked whether it is a duplicate.
    """
    about = f"add address {address}/{prefix}"
    wanted = NLM_F.CREATE | NLM_F.EXCL
    if ":" in address:
        raw = socket.inet_pton(socket.AF_INET6, address)
        head = ifaddrmsg.pack(socket.AF_INET6, prefix, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index)
        return Request(RTM_NEWADDR, wanted, head + attribute(IFA_ADDRESS, raw), about)
    raw = socket.inet_aton(address)
    host_bits = (1 << (32 - prefix)) - 1
    broadcast = _be32(int.from_bytes(raw, "big") | host_bits)
    body = (
        ifaddrmsg.pack(socket.AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, index)
        + attribute(IFA_LOCAL, raw)
        + attribute(IFA_ADDRESS, raw)
        + attribute(IFA_BROADCAST, broadcast)
    )
    return Request(RTM_NEWADDR, wanted, body, about)


def _be32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def add_default_route(gateway: str) -> Request:
    """The default route; EEXIST if there is one, ENETUNREACH if no link reaches it."""
    family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    hop = attribute(RTA_GATEWAY, socket.inet_pton(family, gateway))
    return _default_route(family, RT_SCOPE_UNIVERSE, hop, f"via {gateway}")


def add_default_device_route(index: int, family: int) -> Request:
    """The default route for a link on which every address is a neighbour."""
    return _default_route(family, RT_SCOPE_LINK, attribute(RTA_OIF, _u32(index)), f"on {index}")


def _default_route(family: int, scope: int, hop: bytes, about: str) -> Request:
    body = rtmsg.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0) + hop
    wanted = NLM_F.CREATE | NLM_F.EXCL
    return Request(RTM_NEWROUTE, wanted, body, f"add default route {about}")


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
        body = ifinfomsg.pack(0, 0, 0, 0, 0) + ifname_attribute(name)
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
