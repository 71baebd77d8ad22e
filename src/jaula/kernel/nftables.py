"""List, add and delete tables of nftables with netlink messages, for processes without libnftables.

Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h. A change is a batch between two
messages, of which the kernel takes all or none.
"""

from __future__ import annotations

import errno
import socket
import struct

from jaula.kernel.netlink import NLM_F, Netlink, Request, attribute, attributes, nest, text

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN = 0, 1, 2, 3
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = (
    1,
    3,
    4,
    5,
    7,
)
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFPROTO_INET = 1
NF_DROP, NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT = 0, 0, 3

_nfgenmsg = struct.Struct("=BBH")  # family, version, resource id in network byte order
_HEAD = _nfgenmsg.pack(NFPROTO_INET, 0, 0)


def tables(netns: int) -> tuple[str, ...]:
    """Return the names of the tables of all families in a network namespace.

    ``netns`` is a descriptor. A kernel without nftables has no tables.

    :raises OSError: when the kernel refuses.
    """
    return _names(netns, _nfgenmsg.pack(0, 0, 0))


def _names(netns: int, head: bytes) -> tuple[str, ...]:
    try:
        with Netlink(netns, protocol=NETLINK_NETFILTER) as table:
            bodies = list(table.dump(_kind(NFT_MSG_GETTABLE), head, about="tables"))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPROTONOSUPPORT):  # no nftables, no netfilter
            return ()
        raise
    return tuple(text(attributes(body[_nfgenmsg.size :])[NFTA_TABLE_NAME]) for body in bodies)


def delete_tables(netns: int, prefix: str) -> tuple[str, ...]:
    """Delete the tables of the family inet whose names begin with ``prefix``; return the names.

    ``netns`` is a descriptor of a network namespace. A kernel without nftables has no tables.

    :raises OSError: when the kernel refuses.
    """
    found = tuple(name for name in _names(netns, _HEAD) if name.startswith(prefix))
    if not found:
        return ()
    with Netlink(netns, protocol=NETLINK_NETFILTER) as table:
        for name in found:
            body = _HEAD + _text(NFTA_TABLE_NAME, name)
            request = Request(_kind(NFT_MSG_DELTABLE), 0, body, f"delete table {name}")
            table.send(*_batch(request), ignore=(errno.ENOENT,))  # its owner may be faster
    return found


def add_drop_table(netns: int, name: str) -> None:
    """Add a table of the family inet that drops every packet, until it is deleted.

    :raises OSError: when the kernel refuses, or has no nftables.
    """
    body = _HEAD + _text(NFTA_TABLE_NAME, name)
    requests = [Request(_kind(NFT_MSG_NEWTABLE), NLM_F.CREATE, body, f"add table {name}")]
    for hook in (NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT):
        place = (_number(NFTA_HOOK_HOOKNUM, hook), _number(NFTA_HOOK_PRIORITY, 0))
        body = _HEAD + b"".join(
            (
                _text(NFTA_CHAIN_TABLE, name),
                _text(NFTA_CHAIN_NAME, f"hook{hook}"),
                nest(NFTA_CHAIN_HOOK, *place),
                _number(NFTA_CHAIN_POLICY, NF_DROP),
                _text(NFTA_CHAIN_TYPE, "filter"),
            )
        )
        requests.append(Request(_kind(NFT_MSG_NEWCHAIN), NLM_F.CREATE, body, f"add chain {hook}"))
    with Netlink(netns, protocol=NETLINK_NETFILTER) as table:
        table.send(*_batch(*requests))


def _batch(*requests: Request) -> tuple[Request, ...]:
    bound = _nfgenmsg.pack(0, 0, socket.htons(NFNL_SUBSYS_NFTABLES))
    return (
        Request(NFNL_MSG_BATCH_BEGIN, 0, bound, "begin of a batch", acknowledged=False),
        *requests,
        Request(NFNL_MSG_BATCH_END, 0, bound, "end of a batch", acknowledged=False),
    )


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return attribute(kind, number.to_bytes(4, "big"))


def _kind(message: int) -> int:
    return NFNL_SUBSYS_NFTABLES << 8 | message
