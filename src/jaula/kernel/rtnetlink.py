"""Links, addresses and routes of a network namespace: rtnetlink(7).

Two parts: requests that change the tables, as values (pure), and :class:`Rtnetlink`, a socket that
reads them. Only what bridges and interfaces on the host need is here; :mod:`jaula.network` decides
what links are for.

Source of the numbers: include/uapi/linux/{rtnetlink,if_link,if_addr,veth}.h.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
import time
from dataclasses import dataclass

from jaula.kernel.netlink import (
    NLM_F,
    Netlink,
    Request,
    attribute,
    attributes,
    first_attribute,
    nest,
    text,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_GETNSID, NETNSA_NSID, NETNSA_FD = 90, 1, 3

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_OPERSTATE = 1, 3, 4, 5, 10, 16
IFLA_IFALIAS, IFLA_LINK_NETNSID = 20, 37
IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 18, 26, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 4, 5
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
IFLA_MACVLAN_MODE, IFLA_VLAN_ID = 1, 1
IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS = 1, 2
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_F_NODAD = 1, 2, 4, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RT_TABLE_LOCAL, RTPROT_BOOT, RTN_UNICAST, RTN_LOCAL = 254, 255, 3, 1, 2
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST = 0, 253, 254
IFF_UP = 1
SIOCGIFINDEX = 0x8933  # linux/sockios.h
LOCAL_TIMEOUT = 1.0  # seconds
IF_OPER_UP = 6  # RFC 2863

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}

ifinfomsg = struct.Struct("=BxHiII")  # family, type, index, flags, change
ifaddrmsg = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
rtmsg = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags


def mac_bytes(mac: str) -> bytes:
    """Return ``02:42:ac:11:00:02`` as six bytes.

    :raises ValueError: when ``mac`` is not a MAC address.
    """
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6 or len(mac) != 17:
        raise ValueError(f"{mac!r} is not a MAC address")
    return raw


def ifname_attribute(name: str) -> bytes:
    """Return the IFLA_IFNAME attribute of an interface name.

    :raises OSError: EINVAL when ``name`` is not an interface name.
    """
    raw = os.fsencode(name)
    if not 0 < len(raw) < 16 or b"/" in raw or b"\0" in raw:
        raise OSError(errno.EINVAL, f"rtnetlink: {name!r} is not an interface name")
    return attribute(IFLA_IFNAME, raw + b"\0")


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def add_bridge(name: str, *, mac: str, mtu: int, group: int = 0) -> Request:
    """Create a bridge, down, in an interface group; EEXIST if the name is taken."""
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
    """Create a dummy link, down; EEXIST if the name is taken."""
    return _add(name, "dummy", b"")


def add_vlan(name: str, *, parent: int, tag: int) -> Request:
    """Create a link for an IEEE 802.1Q tag (1 to 4094) on the link with index ``parent``."""
    return _add(name, "vlan", attribute(IFLA_VLAN_ID, tag.to_bytes(2, sys.byteorder)), parent)


def add_macvlan(
    name: str, *, parent: int, netns: int, mode: str, mac: str | None, mtu: int = 0
) -> Request:
    """Create a macvlan link on ``parent`` in the namespace ``netns``, down, with its own MAC."""
    data = attribute(IFLA_MACVLAN_MODE, _u32(MACVLAN_MODES[mode]))
    return _add(name, "macvlan", data, parent, netns, mac, mtu)


def add_ipvlan(
    name: str, *, parent: int, netns: int, mode: str, flag: str, mtu: int = 0
) -> Request:
    """Create an ipvlan link on ``parent`` in the namespace ``netns``, down; it shares the MAC."""
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
    """Create a veth pair, both ends down; the peer is created in the namespace ``peer_netns``.

    ``master`` is the index of the bridge of the near end, ``group`` its interface group.
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
    netns: int | None = None,
    alias: str | None = None,
) -> Request:
    """Change a link, given by name or index; parameters that are None stay unchanged.

    ``netns`` is a descriptor of the network namespace to which the link moves; it is down there and
    has no addresses.

    ``no_link_local`` sets the IPv6 address generation mode to none and must precede ``up``.
    ``hairpin`` and ``isolated`` apply to a bridge port: a frame may leave by the port it came in,
    and no frame passes between isolated ports.
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
    if netns is not None:
        body += attribute(IFLA_NET_NS_FD, _u32(netns))
    if alias is not None:
        body += attribute(IFLA_IFALIAS, alias.encode())
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
    kind = RTM_NEWLINK if port else RTM_SETLINK  # only RTM_NEWLINK reads slave data
    return Request(kind, 0, body, f"set link {link}")


def delete_link(name: str) -> Request:
    """Delete a link; deleting one end of a veth pair deletes the other. ENODEV if absent."""
    return Request(
        RTM_DELLINK,
        0,
        ifinfomsg.pack(0, 0, 0, 0, 0) + ifname_attribute(name),
        f"delete link {name}",
    )


def add_address(index: int, address: str, prefix: int) -> Request:
    """Add an address, for IPv4 with its broadcast address; EEXIST if the link has it.

    Duplicate address detection is disabled for an IPv6 address. The kernel makes it local in a
    worker: see :meth:`Rtnetlink.await_local`.
    """
    description = f"add address {address}/{prefix}"
    flags = NLM_F.CREATE | NLM_F.EXCL
    if ":" in address:
        raw = socket.inet_pton(socket.AF_INET6, address)
        head = ifaddrmsg.pack(socket.AF_INET6, prefix, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index)
        return Request(RTM_NEWADDR, flags, head + attribute(IFA_ADDRESS, raw), description)
    raw = socket.inet_aton(address)
    host_bits = (1 << (32 - prefix)) - 1
    broadcast = _be32(int.from_bytes(raw, "big") | host_bits)
    body = (
        ifaddrmsg.pack(socket.AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, index)
        + attribute(IFA_LOCAL, raw)
        + attribute(IFA_ADDRESS, raw)
        + attribute(IFA_BROADCAST, broadcast)
    )
    return Request(RTM_NEWADDR, flags, body, description)


def _be32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def add_default_route(gateway: str, *, replace: bool = False) -> Request:
    """Add the default route, or replace the present one.

    EEXIST if there is one and ``replace`` is False, ENETUNREACH if no link reaches the gateway.
    """
    family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    hop = attribute(RTA_GATEWAY, socket.inet_pton(family, gateway))
    return _default_route(family, RT_SCOPE_UNIVERSE, hop, f"via {gateway}", replace)


def add_default_device_route(index: int, family: int, *, replace: bool = False) -> Request:
    """Add the default route on a link whose addresses are all on-link, without a gateway.

    ``replace`` is that of :func:`add_default_route`.
    """
    hop = attribute(RTA_OIF, _u32(index))
    return _default_route(family, RT_SCOPE_LINK, hop, f"on {index}", replace)


def _default_route(family: int, scope: int, hop: bytes, description: str, replace: bool) -> Request:
    body = rtmsg.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0) + hop
    flags = NLM_F.CREATE | (NLM_F.REPLACE if replace else NLM_F.EXCL)
    verb = "replace" if replace else "add"
    return Request(RTM_NEWROUTE, flags, body, f"{verb} default route {description}")


def add_local_routes(loopback: int, index: int, neighbour: str) -> tuple[Request, Request]:
    """Make every address of a family local, except ``neighbour``, which is on the link ``index``.

    ``loopback`` is the index of that interface. Both routes are in the table ``local``, in which
    the longer prefix wins.
    """
    family = socket.AF_INET6 if ":" in neighbour else socket.AF_INET
    bits, flags = 128 if family == socket.AF_INET6 else 32, NLM_F.CREATE | NLM_F.EXCL
    table = (RT_TABLE_LOCAL, RTPROT_BOOT)
    host = rtmsg.pack(family, bits, 0, 0, *table, RT_SCOPE_LINK, RTN_UNICAST, 0)
    host += attribute(RTA_DST, socket.inet_pton(family, neighbour)) + attribute(
        RTA_OIF, _u32(index)
    )
    all_ = rtmsg.pack(family, 0, 0, 0, *table, RT_SCOPE_HOST, RTN_LOCAL, 0)
    all_ += attribute(RTA_OIF, _u32(loopback))
    return (
        Request(RTM_NEWROUTE, flags, host, f"add route to {neighbour}"),
        Request(RTM_NEWROUTE, flags, all_, "make all addresses local"),
    )


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the link table."""

    index: int
    name: str
    flags: int
    mac: str
    mtu: int
    master: int  # index; 0: none
    parent: int  # index of the lower link; 0: none
    kind: str  # 'veth', 'bridge', ...; '' for hardware and loopback
    operstate: int  # RFC 2863; IF_OPER_UP when the link carries frames
    alias: str = ""
    parent_netns: int = -1  # id of the namespace of ``parent`` in this one; -1: the same

    @property
    def up(self) -> bool:
        """Whether the link is administratively up; it carries frames only in ``IF_OPER_UP``."""
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
    """One route; ``destination`` is '' for a default route, ``index`` is 0 without an interface."""

    family: int
    destination: str
    prefix: int
    gateway: str
    index: int
    table: int


class Rtnetlink(Netlink):
    """A routing socket (NETLINK_ROUTE). Not thread safe."""

    def link(self, name: str) -> Link | None:
        """Return the link with this name, or None.

        Since Linux 6.8 the request also makes the kernel complete a deferred carrier change.
        """
        body = ifinfomsg.pack(0, 0, 0, 0, 0) + ifname_attribute(name)
        reply = self.ask(RTM_GETLINK, body, about=f"link {name}", absent=errno.ENODEV)
        return None if reply is None else _parse_link(reply)

    def index(self, name: str) -> int:
        """Return the index of the link with this name, or 0. It takes 2 µs."""
        request = struct.pack("16sI20x", os.fsencode(name), 0)  # ifreq, netdevice(7)
        try:
            reply: bytes = fcntl.ioctl(self._socket, SIOCGIFINDEX, request)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return 0
        return int(struct.unpack_from("=16xI", reply)[0])

    def links(self) -> list[Link]:
        """Return every link of the namespace."""
        body = ifinfomsg.pack(0, 0, 0, 0, 0)
        return [_parse_link(x) for x in self.dump(RTM_GETLINK, body, about="links")]

    def netns_id(self, netns: int) -> int:
        """Return the id that this namespace has for another one, a descriptor; -1 if it has none.

        A link whose lower link or peer is in another namespace gives that one an id.
        """
        body = b"\0" * 4 + attribute(NETNSA_FD, _u32(netns))  # struct rtgenmsg, padded
        reply = self.ask(RTM_GETNSID, body, about="id of a namespace", absent=errno.ENOENT)
        return -1 if reply is None else _signed(first_attribute(reply[4:], NETNSA_NSID))

    def ports(self, master: int) -> list[str]:
        """Return the names of the links whose master has this index. It takes 10 µs a link.

        The kernel leaves the others out (IFLA_MASTER in ``rtnl_dump_ifinfo``, since Linux 4.6).
        """
        body = ifinfomsg.pack(0, 0, 0, 0, 0) + attribute(IFLA_MASTER, _u32(master))
        rows = self.dump(RTM_GETLINK, body, about=f"ports of link {master}")
        return [text(first_attribute(row[ifinfomsg.size :], IFLA_IFNAME)) for row in rows]

    def addresses(self) -> list[Address]:
        """Return every IPv4 and IPv6 address of the namespace."""
        rows = []
        request = ifaddrmsg.pack(0, 0, 0, 0, 0)
        for body in self.dump(RTM_GETADDR, request, about="addresses"):
            family, prefix, _, _, index = ifaddrmsg.unpack_from(body)
            values = attributes(body[ifaddrmsg.size :])
            raw = values.get(IFA_LOCAL, values.get(IFA_ADDRESS, b""))
            rows.append(Address(index, family, _ip(family, raw), prefix))
        return rows

    def await_local(self, address: str) -> None:
        """Wait until packets to an IPv6 address of this namespace are received, at most a second.

        The kernel adds the local route of a new address in a worker (net/ipv6/addrconf.c). A packet
        that arrives before is dropped: an answer of neighbour discovery then, which is asked for
        again after a second.
        """
        raw = socket.inet_pton(socket.AF_INET6, address)
        body = rtmsg.pack(socket.AF_INET6, 128, 0, 0, 0, 0, 0, 0, 0) + attribute(RTA_DST, raw)
        end = time.monotonic() + LOCAL_TIMEOUT
        while time.monotonic() < end:
            about = f"route to {address}"
            reply = self.ask(RTM_GETROUTE, body, about=about, absent=errno.ENETUNREACH)
            if reply is not None and rtmsg.unpack_from(reply)[7] == RTN_LOCAL:
                return
            time.sleep(0.0002)

    def routes(self) -> list[Route]:
        """Return the IPv4 and IPv6 routes of all tables of the namespace."""
        rows = []
        request = rtmsg.pack(*[0] * 9)
        for body in self.dump(RTM_GETROUTE, request, about="routes"):
            family, prefix, _, _, table, _, _, _, _ = rtmsg.unpack_from(body)
            if family not in (socket.AF_INET, socket.AF_INET6):
                continue
            values = attributes(body[rtmsg.size :])
            rows.append(
                Route(
                    family,
                    _ip(family, values.get(RTA_DST, b"")),
                    prefix,
                    _ip(family, values.get(RTA_GATEWAY, b"")),
                    _number(values.get(RTA_OIF)),
                    _number(values.get(RTA_TABLE)) or table,
                )
            )
        return rows


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = ifinfomsg.unpack_from(body)
    values = attributes(body[ifinfomsg.size :])
    return Link(
        index,
        text(values.get(IFLA_IFNAME, b"")),
        flags,
        values.get(IFLA_ADDRESS, b"").hex(":"),
        _number(values.get(IFLA_MTU)),
        _number(values.get(IFLA_MASTER)),
        _number(values.get(IFLA_LINK)),
        text(attributes(values.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")),
        values.get(IFLA_OPERSTATE, b"\0")[0],
        text(values.get(IFLA_IFALIAS, b"")),
        _signed(values.get(IFLA_LINK_NETNSID)),
    )


def _ip(family: int, raw: bytes) -> str:
    size = 4 if family == socket.AF_INET else 16
    return socket.inet_ntop(family, raw) if len(raw) == size else ""


def _signed(raw: bytes | None) -> int:
    return -1 if not raw else int.from_bytes(raw[:4], sys.byteorder, signed=True)


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw[:4], sys.byteorder) if raw else 0
