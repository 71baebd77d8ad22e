"""Delete tracked UDP flows of a port that was published or released. Follows nf_conntrack.

The kernel decides once for each flow where its packets go. A UDP client that keeps sending from one
port keeps its flow. So a port that was just published would stay closed to that client, and a port
that moved to another container would lead to the old one. TCP is not affected, since a new
connection is a new flow. Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from jaula.kernel.netlink import Netlink, Request, attribute, attributes, nest
from jaula.spec.endpoint_record import PublishedPort

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
    """Delete the tracked UDP flows to these host ports. Return their number.

    A kernel without connection tracking has no flows.

    :raises OSError: when the kernel refuses a request.
    """
    ports_udp = {port.host_port for port in ports if port.protocol == "udp"}
    if not ports_udp:
        return 0
    count = 0
    with Netlink(protocol=NETLINK_NETFILTER) as table:
        for port in ports_udp:
            count += sum(_delete_port_flows(table, port, family) for family in _FAMILIES)
    return count


def _delete_port_flows(table: Netlink, port: int, family: int) -> int:
    query = _nfgenmsg.pack(family, 0, 0) + _udp_filter(port)
    requests = [
        request
        for body in table.dump(IPCTNL_MSG_CT_GET, query, about="flows")
        if (request := delete_request(body, port)) is not None
    ]
    for request in requests:
        table.send(request, ignore=(errno.ENOENT,))  # it may have expired meanwhile
    return len(requests)


def _udp_filter(port: int) -> bytes:
    """Return a filter for flows to one UDP port (Linux 5.8; older kernels ignore it)."""
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
    """Return the request that deletes the flow of a dump's entry, or None for other flows."""
    flow = attributes(body[_nfgenmsg.size :])
    protocol = attributes(attributes(flow.get(CTA_TUPLE_ORIG, b"")).get(CTA_TUPLE_PROTO, b""))
    number = protocol.get(CTA_PROTO_NUM, b"")
    destination = protocol.get(CTA_PROTO_DST_PORT, b"")
    if number[:1] != bytes([socket.IPPROTO_UDP]) or destination[:2] != port.to_bytes(2, "big"):
        return None
    flow_id = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, flow[CTA_TUPLE_ORIG])
    for kind in (CTA_ID, CTA_ZONE):
        if kind in flow:
            flow_id += attribute(kind, flow[kind])
    description = f"delete flow to udp port {port}"
    return Request(IPCTNL_MSG_CT_DELETE, 0, body[: _nfgenmsg.size] + flow_id, description)
