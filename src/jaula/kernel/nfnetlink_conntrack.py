"""Add entries of connection tracking: nfnetlink_conntrack.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from jaula.kernel.netlink import NLM_F, Request, attribute, nest

IPCTNL_MSG_CT_NEW, IPCTNL_MSG_CT_DELETE = 1 << 8, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_PROTOINFO, CTA_TIMEOUT = 1, 2, 3, 4, 7
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC, CTA_IP_V6_DST = 1, 2, 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
CTA_PROTOINFO_TCP = 1
CTA_PROTOINFO_TCP_STATE = 1
CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, CTA_PROTOINFO_TCP_FLAGS_REPLY = 4, 5
TCP_CONNTRACK_ESTABLISHED = 3
IP_CT_TCP_FLAG_BE_LIBERAL = 0x08  # the windows are not known
IPS_SEEN_REPLY, IPS_ASSURED, IPS_CONFIRMED = 2, 4, 8
TIMEOUT = 5 * 24 * 3600  # seconds, the kernel's own of an established connection

_nfgenmsg = struct.Struct("=BBH")  # family, version, resource id


class Flow(NamedTuple):
    """A connection of TCP, in the direction in which it was opened."""

    source: str
    source_port: int
    destination: str
    destination_port: int

    @property
    def family(self) -> int:
        """The address family."""
        return socket.AF_INET6 if ":" in self.source else socket.AF_INET


def add_tcp(flow: Flow) -> Request:
    """Add an established connection without translation; the kernel answers EEXIST if it has it."""
    reply = Flow(flow.destination, flow.destination_port, flow.source, flow.source_port)
    liberal = bytes((IP_CT_TCP_FLAG_BE_LIBERAL, IP_CT_TCP_FLAG_BE_LIBERAL))
    state = nest(
        CTA_PROTOINFO_TCP,
        attribute(CTA_PROTOINFO_TCP_STATE, bytes((TCP_CONNTRACK_ESTABLISHED,))),
        attribute(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, liberal),
        attribute(CTA_PROTOINFO_TCP_FLAGS_REPLY, liberal),
    )
    status = IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED
    body = b"".join(
        (
            _nfgenmsg.pack(flow.family, 0, 0),
            _tuple(CTA_TUPLE_ORIG, flow),
            _tuple(CTA_TUPLE_REPLY, reply),
            attribute(CTA_STATUS, status.to_bytes(4, "big")),
            attribute(CTA_TIMEOUT, TIMEOUT.to_bytes(4, "big")),
            nest(CTA_PROTOINFO, state),
        )
    )
    return Request(IPCTNL_MSG_CT_NEW, NLM_F.CREATE | NLM_F.EXCL, body, f"track {flow}")


def delete_tcp(flow: Flow) -> Request:
    """Delete the entry of a connection."""
    body = _nfgenmsg.pack(flow.family, 0, 0) + _tuple(CTA_TUPLE_ORIG, flow)
    return Request(IPCTNL_MSG_CT_DELETE, 0, body, f"forget {flow}")


def _tuple(kind: int, flow: Flow) -> bytes:
    if flow.family == socket.AF_INET6:
        places = CTA_IP_V6_SRC, CTA_IP_V6_DST
    else:
        places = CTA_IP_V4_SRC, CTA_IP_V4_DST
    addresses = (socket.inet_pton(flow.family, each) for each in (flow.source, flow.destination))
    return nest(
        kind,
        nest(CTA_TUPLE_IP, *map(attribute, places, addresses)),
        nest(
            CTA_TUPLE_PROTO,
            attribute(CTA_PROTO_NUM, bytes((socket.IPPROTO_TCP,))),
            attribute(CTA_PROTO_SRC_PORT, flow.source_port.to_bytes(2, "big")),
            attribute(CTA_PROTO_DST_PORT, flow.destination_port.to_bytes(2, "big")),
        ),
    )
