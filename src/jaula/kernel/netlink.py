"""Network links, addresses and routes: rtnetlink(7), over one socket of netlink(7).

The part of rtnetlink that an engine with bridges needs, and no more: the kernel's struct layouts,
requests as values, and a socket that sends a batch of requests in one system call. Numbers come
from include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,veth}.h. What links are for is decided
in :mod:`jaula.network`.

Why not pyroute2, which is complete: it loads 310 modules and 21 MiB, and an idle engine has 45 MiB
in all. An attach here is two sends.

Facts about netlink: a batch goes on after a message that fails, so every acknowledgement is read
before the first error is raised. A netlink socket belongs for ever to the network namespace in
which it was opened, so a thread visits a namespace only to open one there.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag

from jaula.kernel.namespaces import CLONE, setns

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

NLMSG_ERROR, NLMSG_DONE = 2, 3
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLMSGERR_ATTR_MSG = 1

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_OPERSTATE = 1, 3, 4, 10, 16
IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 18, 26, 27, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_MODE = 4, 5, 4
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_F_NODAD = 1, 2, 4, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 255, 3, 0, 1
IFF_UP = 1
IF_OPER_UP = 6
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

_header = struct.Struct("=IHHII")  # nlmsghdr: len, type, flags, seq, pid
_link = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_address = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefixlen, flags, scope, index
_route = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst, src, tos, table, proto, scope, type, f
_attribute = struct.Struct("=HH")  # rtattr: len, type


class NLM_F(IntFlag):
    """Flags of a netlink message header."""

    REQUEST = 0x1
    ACK = 0x4
    DUMP = 0x300
    REPLACE = 0x100
    EXCL = 0x200
    CREATE = 0x400


@dataclass(frozen=True, slots=True)
class Request:
    """One message, not yet sent; ``about`` is what an error names."""

    type: int
    flags: int
    body: bytes
    about: str


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the table of links."""

    index: int
    name: str
    flags: int
    mac: str
    mtu: int
    master: int  # 0: none
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


def attribute(kind: int, payload: bytes) -> bytes:
    """A routing attribute, padded to four bytes."""
    length = _attribute.size + len(payload)
    return _attribute.pack(length, kind) + payload + bytes(-length % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def mac_bytes(mac: str) -> bytes:
    """``02:42:ac:11:00:02`` as six bytes; ValueError for anything else."""
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6 or len(mac) != 17:
        raise ValueError(f"{mac!r} is not a MAC address")
    return raw


def _name(name: str) -> bytes:
    raw = os.fsencode(name)
    if not 0 < len(raw) < 16 or b"/" in raw or b"\0" in raw:
        raise OSError(errno.EINVAL, f"rtnetlink: {name!r} is not an interface name")
    return attribute(IFLA_IFNAME, raw + b"\0")


def add_bridge(name: str, *, mac: str, mtu: int) -> Request:
    """A new bridge, down; EEXIST if the name is taken."""
    body = (
        _link.pack(0, 0, 0, 0, 0)
        + _name(name)
        + attribute(IFLA_ADDRESS, mac_bytes(mac))
        + attribute(IFLA_MTU, _u32(mtu))
        + nest(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"bridge\0"))
    )
    return Request(RTM_NEWLINK, NLM_F.CREATE | NLM_F.EXCL, body, f"add bridge {name}")


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
    peer = _link.pack(0, 0, 0, 0, 0) + _name(peer_name) + attribute(IFLA_MTU, _u32(mtu))
    if peer_mac is not None:
        peer += attribute(IFLA_ADDRESS, mac_bytes(peer_mac))
    if peer_netns is not None:
        peer += attribute(IFLA_NET_NS_FD, _u32(peer_netns))
    body = _link.pack(0, 0, 0, 0, 0) + _name(name) + attribute(IFLA_MTU, _u32(mtu))
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
    no_link_local: bool = False,
    hairpin: bool | None = None,
) -> Request:
    """Change a link named by its name or index; what is None stays.

    ``no_link_local`` sets the IPv6 address generation mode 'none', to be asked before ``up``.
    ``hairpin`` is for a port of a bridge: whether a frame may leave where it came in.
    """
    index = link if isinstance(link, int) else 0
    change = IFF_UP if up is not None else 0
    body = _link.pack(0, 0, index, IFF_UP if up else 0, change)
    if isinstance(link, str):
        body += _name(link)
    elif name is not None:
        body += _name(name)
    if master is not None:
        body += attribute(IFLA_MASTER, _u32(master))
    if mtu is not None:
        body += attribute(IFLA_MTU, _u32(mtu))
    if mac is not None:
        body += attribute(IFLA_ADDRESS, mac_bytes(mac))
    if no_link_local:
        mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))
        body += nest(IFLA_AF_SPEC, nest(socket.AF_INET6, mode))
    if hairpin is not None:
        port = nest(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, bytes([hairpin])))
        body += nest(IFLA_LINKINFO, attribute(IFLA_INFO_SLAVE_KIND, b"bridge\0"), port)
    kind = RTM_SETLINK if hairpin is None else RTM_NEWLINK  # only the latter reads slave data
    return Request(kind, 0, body, f"set link {link}")


def delete_link(name: str) -> Request:
    """Remove a link, and with one end of a veth the other; ENODEV if there is none."""
    return Request(RTM_DELLINK, 0, _link.pack(0, 0, 0, 0, 0) + _name(name), f"delete link {name}")


def add_address(index: int, address: str, prefix: int) -> Request:
    """An address, for IPv4 with its broadcast address; EEXIST if the link has it.

    An IPv6 address is usable at once: nobody is asked whether it is a duplicate.
    """
    about = f"add address {address}/{prefix}"
    wanted = NLM_F.CREATE | NLM_F.EXCL
    if ":" in address:
        raw = socket.inet_pton(socket.AF_INET6, address)
        head = _address.pack(socket.AF_INET6, prefix, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index)
        return Request(RTM_NEWADDR, wanted, head + attribute(IFA_ADDRESS, raw), about)
    raw = socket.inet_aton(address)
    host_bits = (1 << (32 - prefix)) - 1
    broadcast = _be32(int.from_bytes(raw, "big") | host_bits)
    body = (
        _address.pack(socket.AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, index)
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
    main = (RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST)
    body = _route.pack(family, 0, 0, 0, *main, 0)
    body += attribute(RTA_GATEWAY, socket.inet_pton(family, gateway))
    about = f"add default route via {gateway}"
    return Request(RTM_NEWROUTE, NLM_F.CREATE | NLM_F.EXCL, body, about)


@contextmanager
def visiting(netns: int) -> Iterator[None]:
    """Put the calling thread in a network namespace for the length of a block.

    Only the calling thread moves. /proc/sys/net follows the thread, as a netlink socket does.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns, CLONE.NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE.NEWNET)
    finally:
        os.close(home)


class Netlink:
    """A netlink socket of the namespace in which it was opened. Not thread safe."""

    def __init__(self, netns: int | None = None, *, protocol: int = socket.NETLINK_ROUTE) -> None:
        if netns is None:
            self._socket = _open(protocol)
        else:
            with visiting(netns):
                self._socket = _open(protocol)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, *requests: Request, ignore: Sequence[int] = ()) -> None:
        """Send a batch in one call and wait for every answer.

        Raises ``OSError`` for the first request that the kernel refused, naming it and the
        kernel's own explanation; errno values in ``ignore`` count as done.
        """
        first = self._sequence + 1
        batch = []
        for request in requests:
            self._sequence += 1
            wanted = request.flags | NLM_F.REQUEST | NLM_F.ACK
            length = _header.size + len(request.body)
            head = _header.pack(length, request.type, wanted, self._sequence, 0)
            batch.append(head + request.body + bytes(-length % 4))
        self._socket.send(b"".join(batch))
        failures: dict[int, OSError] = {}
        waiting = set(range(first, self._sequence + 1))
        while waiting:
            for kind, flags, sequence, body in _messages(self._socket.recv(65536)):
                if kind != NLMSG_ERROR or sequence not in waiting:
                    continue
                waiting.discard(sequence)
                number = -struct.unpack_from("=i", body)[0]
                if number and number not in ignore:
                    about = requests[sequence - first].about
                    failures[sequence] = _refusal(number, about, body, flags)
        if failures:
            raise failures[min(failures)]

    def link(self, name: str) -> Link | None:
        """The link of that name, None if there is none.

        Since Linux 6.8 this also lets the kernel finish a change of carrier that it had put off.
        """
        self._sequence += 1
        body = _link.pack(0, 0, 0, 0, 0) + _name(name)
        length = _header.size + len(body)
        head = _header.pack(length, RTM_GETLINK, NLM_F.REQUEST, self._sequence, 0)
        self._socket.send(head + body)
        while True:
            for kind, flags, sequence, payload in _messages(self._socket.recv(65536)):
                if sequence != self._sequence:
                    continue
                if kind != NLMSG_ERROR:
                    return _parse_link(payload)
                number = -struct.unpack_from("=i", payload)[0]
                if number == errno.ENODEV:
                    return None
                raise _refusal(number, f"get link {name}", payload, flags)

    def links(self) -> list[Link]:
        """Every link of the namespace."""
        body = _link.pack(0, 0, 0, 0, 0)
        return [_parse_link(x) for x in self.dump(RTM_GETLINK, body, about="links")]

    def addresses(self) -> list[Address]:
        """Every IPv4 and IPv6 address of the namespace."""
        rows = []
        wanted = _address.pack(0, 0, 0, 0, 0)
        for body in self.dump(RTM_GETADDR, wanted, about="addresses"):
            family, prefix, _, _, index = _address.unpack_from(body)
            found = attributes(body[_address.size :])
            raw = found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))
            rows.append(Address(index, family, _ip(family, raw), prefix))
        return rows

    def routes(self) -> list[Route]:
        """Every IPv4 and IPv6 route of every table of the namespace."""
        rows = []
        wanted = _route.pack(*[0] * 9)
        for body in self.dump(RTM_GETROUTE, wanted, about="routes"):
            family, prefix, _, _, table, _, _, _, _ = _route.unpack_from(body)
            if family not in (socket.AF_INET, socket.AF_INET6):
                continue
            found = attributes(body[_route.size :])
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

    def dump(self, kind: int, body: bytes, *, about: str) -> Iterator[bytes]:
        """The body of each entry of a table that a request of type ``kind`` asks for."""
        self._sequence += 1
        length = _header.size + len(body)
        wanted = NLM_F.REQUEST | NLM_F.DUMP
        self._socket.send(_header.pack(length, kind, wanted, self._sequence, 0) + body)
        while True:
            for answer, flags, sequence, payload in _messages(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_DONE:
                    return
                if answer == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    raise _refusal(number, f"list {about}", payload, flags)
                yield payload


def _open(protocol: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    made.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    made.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    return made


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of each message of a datagram."""
    offset = 0
    while offset + _header.size <= len(data):
        length, kind, flags, sequence, _ = _header.unpack_from(data, offset)
        if length < _header.size or offset + length > len(data):
            raise OSError(errno.EPROTO, "rtnetlink: truncated message")
        yield kind, flags, sequence, data[offset + _header.size : offset + length]
        offset += (length + 3) & ~3


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _link.unpack_from(body)
    found = attributes(body[_link.size :])
    return Link(
        index,
        _text(found.get(IFLA_IFNAME, b"")),
        flags,
        found.get(IFLA_ADDRESS, b"").hex(":"),
        _number(found.get(IFLA_MTU)),
        _number(found.get(IFLA_MASTER)),
        _text(attributes(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"")),
        found.get(IFLA_OPERSTATE, b"\0")[0],
    )


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in a message, by number; what is cut short is left out."""
    found = {}
    offset = 0
    while offset + _attribute.size <= len(data):
        length, kind = _attribute.unpack_from(data, offset)
        if length < _attribute.size:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + _attribute.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _refusal(number: int, about: str, body: bytes, flags: int) -> OSError:
    """The error of a request, with the kernel's sentence when it sent one (NLM_F_ACK_TLVS)."""
    said = ""
    if flags & 0x200:
        said = _text(attributes(body[4 + _header.size :]).get(NLMSGERR_ATTR_MSG, b""))
    reason = os.strerror(number) + (f" ({said})" if said else "")
    return OSError(number, f"netlink: {about}: {reason}")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _number(raw: bytes | None) -> int:
    return int.from_bytes(raw[:4], sys.byteorder) if raw else 0


def _ip(family: int, raw: bytes) -> str:
    size = 4 if family == socket.AF_INET else 16
    return socket.inet_ntop(family, raw) if len(raw) == size else ""
