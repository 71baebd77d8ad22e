"""Forgetting flows that were tracked before a UDP port changed hands.

The kernel decides once for a flow where its packets go (nf_conntrack). A UDP client that keeps
sending from one port keeps its flow, so a port that was published just now would stay closed to
it, and one that has moved to another container would lead to the dead one. Follows
include/uapi/linux/netfilter/nfnetlink_conntrack.h; TCP needs none of it, since a new connection
is a new flow.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from jaula.kernel.netlink import Netlink, Request, attribute, attributes, nest
from jaula.spec.endpoint import PublishedPort

NETLINK_NETFILTER = 12
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK
CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 12, 18, 25
CTA_TUPLE_PROTO, CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 2, 1, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
FILTER_PROTO_NUM, FILTER_DST_PORT = 1 << 3, 1 << 5  # net/netfilter/nf_internals.h
NLA_F_NESTED = 0x8000

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_nfgenmsg = struct.Struct("=BBH")  # family, version, resource id


def delete_udp_flows(ports: Iterable[PublishedPort]) -> int:
    """Delete the tracked UDP flows to these host ports; how many there were.

    Raises ``OSError``. A kernel without connection tracking has nothing to forget.
    """
    wanted = {port.host_port for port in ports if port.protocol == "udp"}
    if not wanted:
        return 0
    count = 0
    with Netlink(protocol=NETLINK_NETFILTER) as table:
        for port in wanted:
            count += sum(_forget_port(table, port, family) for family in _FAMILIES)
    return count


def _forget_port(table: Netlink, port: int, family: int) -> int:
    asked = _nfgenmsg.pack(family, 0, 0) + _selection(port)
    found = [
        request
        for body in table.dump(IPCTNL_MSG_CT_GET, asked, about="flows")
        if (request := delete_request(body, port)) is not None
    ]
    for request in found:
        table.send(request, ignore=(errno.ENOENT,))  # it may end by itself meanwhile
    return len(found)


def _selection(port: int) -> bytes:
    """Ask for flows to one UDP port only (Linux 5.8; before, the kernel sends all)."""
    protocol = nest(
        CTA_TUPLE_PROTO,
        attribute(CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])),
        attribute(CTA_PROTO_DST_PORT, port.to_bytes(2, "big")),
    )
    flags = struct.pack("=I", FILTER_PROTO_NUM | FILTER_DST_PORT)
    return nest(CTA_TUPLE_ORIG, protocol) + nest(
        CTA_FILTER,
        attribute(CTA_FILTER_ORIG_FLAGS, flags),
        attribute(CTA_FILTER_REPLY_FLAGS, bytes(4)),
    )


def delete_request(body: bytes, port: int) -> Request | None:
    """The request that deletes the flow in a dump's entry, None if it goes elsewhere."""
    flow = attributes(body[_nfgenmsg.size :])
    protocol = attributes(attributes(flow.get(CTA_TUPLE_ORIG, b"")).get(CTA_TUPLE_PROTO, b""))
    number = protocol.get(CTA_PROTO_NUM, b"")
    destination = protocol.get(CTA_PROTO_DST_PORT, b"")
    if number[:1] != bytes([socket.IPPROTO_UDP]) or destination[:2] != port.to_bytes(2, "big"):
        return None
    same = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, flow[CTA_TUPLE_ORIG])
    for kind in (CTA_ID, CTA_ZONE):
        if kind in flow:
            same += attribute(kind, flow[kind])
    about = f"delete flow to udp port {port}"
    return Request(IPCTNL_MSG_CT_DELETE, 0, body[: _nfgenmsg.size] + same, about)
