"""List and delete tables of nftables with netlink messages, for processes without libnftables.

Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h. A change is a batch between two
messages, of which the kernel takes all or none.
"""

from __future__ import annotations

import errno
import socket
import struct

from jaula.kernel.netlink import Netlink, Request, attribute, attributes, text

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_GETTABLE, NFT_MSG_DELTABLE = 1, 2
NFTA_TABLE_NAME = 1
NFPROTO_INET = 1

_nfgenmsg = struct.Struct("=BBH")  # family, version, resource id in network byte order


def delete_tables(netns: int, prefix: str) -> tuple[str, ...]:
    """Delete the tables of the family inet whose names begin with ``prefix``; return the names.

    ``netns`` is a descriptor of a network namespace. A kernel without nftables has no tables.

    :raises OSError: when the kernel refuses.
    """
    head = _nfgenmsg.pack(NFPROTO_INET, 0, 0)
    bound = _nfgenmsg.pack(0, 0, socket.htons(NFNL_SUBSYS_NFTABLES))
    with Netlink(netns, protocol=NETLINK_NETFILTER) as table:
        try:
            names = [
                attributes(body[_nfgenmsg.size :])[NFTA_TABLE_NAME]
                for body in table.dump(_kind(NFT_MSG_GETTABLE), head, about="tables")
            ]
        except OSError as error:
            if error.errno == errno.EINVAL:
                return ()
            raise
        found = tuple(text(name) for name in names if text(name).startswith(prefix))
        for name in found:
            body = head + attribute(NFTA_TABLE_NAME, name.encode() + b"\0")
            table.send(
                Request(NFNL_MSG_BATCH_BEGIN, 0, bound, "begin of a batch", acknowledged=False),
                Request(_kind(NFT_MSG_DELTABLE), 0, body, f"delete table {name}"),
                Request(NFNL_MSG_BATCH_END, 0, bound, "end of a batch", acknowledged=False),
                ignore=(errno.ENOENT,),  # its owner was faster
            )
    return found


def _kind(message: int) -> int:
    return NFNL_SUBSYS_NFTABLES << 8 | message
