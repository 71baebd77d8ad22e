"""Change tables and elements of sets of nftables with netlink messages, without libnftables.

Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h. A change is a batch between two
messages, of which the kernel takes all or none.

Facts about elements: libnftables reads the ruleset of the host before it changes an element, so its
time grows with the rules of other programs. A message of nf_tables needs the name of the set only.
The kernel keeps each field of a concatenated key in whole registers of four bytes.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable

from jaula.kernel.netlink import NLM_F, Netlink, Request, attribute, attributes, nest, text

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN = 0, 1, 2, 3
NFT_MSG_NEWRULE = 6
NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM = 12, 14
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = (
    1,
    3,
    4,
    5,
    7,
)
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 1, 2, 4
NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 1, 2
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY = 1
NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE = 1, 2, 1
NFTA_META_DREG, NFTA_META_KEY = 1, 2
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA = 1, 2, 3
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN = 1, 2, 3, 4
NFTA_BITWISE_SREG, NFTA_BITWISE_DREG, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK, NFTA_BITWISE_XOR = (
    1,
    2,
    3,
    4,
    5,
)
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA = 1, 2
NFT_REG_VERDICT, NFT_REG_1 = 0, 1
NFT_META_L4PROTO, NFT_PAYLOAD_TRANSPORT_HEADER = 16, 2
NFT_CMP_EQ, NFT_CMP_NEQ = 0, 1
NFPROTO_INET, NFPROTO_ARP, NFPROTO_BRIDGE = 1, 3, 7
NF_DROP, NF_ACCEPT = 0, 1
NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT, NF_ARP_OUT = 0, 3, 1
_TCP_FLAGS, _RST = 13, 0x04  # offset in the header of TCP, in bytes, and a flag (RFC 9293)

_nfgenmsg = struct.Struct("=BBH")  # family, version, resource id in network byte order


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


def delete_tables(netns: int, prefix: str, family: int = NFPROTO_INET) -> tuple[str, ...]:
    """Delete the tables of a family whose names begin with ``prefix``; return the names.

    ``netns`` is a descriptor of a network namespace. A kernel without nftables has no tables.

    :raises OSError: when the kernel refuses.
    """
    head = _nfgenmsg.pack(family, 0, 0)
    found = tuple(name for name in _names(netns, head) if name.startswith(prefix))
    if not found:
        return ()
    with Netlink(netns, protocol=NETLINK_NETFILTER) as table:
        for name in found:
            body = head + _text(NFTA_TABLE_NAME, name)
            request = Request(_kind(NFT_MSG_DELTABLE), 0, body, f"delete table {name}")
            table.send(*_batch(request), ignore=(errno.ENOENT,))  # its owner may be faster
    return found


def add_drop_table(netns: int, name: str) -> None:
    """Add a table of the family inet that drops every packet, until it is deleted.

    :raises OSError: when the kernel refuses, or has no nftables.
    """
    requests = [
        _add_table(NFPROTO_INET, name),
        _add_chain(NFPROTO_INET, name, NF_INET_PRE_ROUTING, NF_DROP),
        _add_chain(NFPROTO_INET, name, NF_INET_LOCAL_OUT, NF_DROP),
    ]
    with Netlink(netns, protocol=NETLINK_NETFILTER) as table:
        table.send(*_batch(*requests))


def add_arp_table(netns: int, name: str) -> None:
    """Add a table of the family arp that drops what the host sends, until it is deleted.

    :raises OSError: when the kernel refuses, or has no such family.
    """
    requests = [
        _add_table(NFPROTO_ARP, name),
        _add_chain(NFPROTO_ARP, name, NF_ARP_OUT, NF_DROP),
    ]
    with Netlink(netns, protocol=NETLINK_NETFILTER) as table:
        table.send(*_batch(*requests))


def add_reset_table(netns: int, name: str) -> None:
    """Add a table of the family inet that drops the TCP resets of the host, until it is deleted.

    A packet for a connection that does not exist yet has no answer then.

    :raises OSError: when the kernel refuses, or has no nftables.
    """
    requests = [
        _add_table(NFPROTO_INET, name),
        _add_chain(NFPROTO_INET, name, NF_INET_LOCAL_OUT, NF_ACCEPT),
        _add_rule(NFPROTO_INET, name, NF_INET_LOCAL_OUT, *_drop_reset()),
    ]
    with Netlink(netns, protocol=NETLINK_NETFILTER) as table:
        table.send(*_batch(*requests))


def concatenated(*fields: bytes) -> bytes:
    """Return the key of a set whose type is a concatenation. Pure."""
    return b"".join(field + bytes(-len(field) % 4) for field in fields)


def change_elements(
    table: Netlink, family: int, name: str, keys: Iterable[tuple[str, bytes]], *, add: bool
) -> None:
    """Add or delete elements of sets of the table ``name``: all or none.

    ``table`` is a socket of NETLINK_NETFILTER. ``keys`` are pairs of a set and a key. An element
    that is there may be added again.

    :raises OSError: when the kernel refuses; ENOENT if the table, a set, or an element to delete is
        missing.
    """
    kind, flags = (NFT_MSG_NEWSETELEM, NLM_F.CREATE) if add else (NFT_MSG_DELSETELEM, 0)
    requests = (
        Request(
            _kind(kind),
            flags,
            _nfgenmsg.pack(family, 0, 0)
            + _text(NFTA_SET_ELEM_LIST_TABLE, name)
            + _text(NFTA_SET_ELEM_LIST_SET, set_)
            + nest(
                NFTA_SET_ELEM_LIST_ELEMENTS,
                nest(NFTA_LIST_ELEM, nest(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, key))),
            ),
            f"change an element of {set_} in the table {name}",
        )
        for set_, key in keys
    )
    table.send(*_batch(*requests))


def _add_table(family: int, name: str) -> Request:
    body = _nfgenmsg.pack(family, 0, 0) + _text(NFTA_TABLE_NAME, name)
    return Request(_kind(NFT_MSG_NEWTABLE), NLM_F.CREATE, body, f"add table {name}")


def _add_chain(family: int, table: str, hook: int, policy: int) -> Request:
    place = (_number(NFTA_HOOK_HOOKNUM, hook), _number(NFTA_HOOK_PRIORITY, 0))
    body = _nfgenmsg.pack(family, 0, 0) + b"".join(
        (
            _text(NFTA_CHAIN_TABLE, table),
            _text(NFTA_CHAIN_NAME, f"hook{hook}"),
            nest(NFTA_CHAIN_HOOK, *place),
            _number(NFTA_CHAIN_POLICY, policy),
            _text(NFTA_CHAIN_TYPE, "filter"),
        )
    )
    return Request(_kind(NFT_MSG_NEWCHAIN), NLM_F.CREATE, body, f"add chain {hook}")


def _add_rule(family: int, table: str, hook: int, *expressions: bytes) -> Request:
    body = _nfgenmsg.pack(family, 0, 0) + b"".join(
        (
            _text(NFTA_RULE_TABLE, table),
            _text(NFTA_RULE_CHAIN, f"hook{hook}"),
            nest(NFTA_RULE_EXPRESSIONS, *expressions),
        )
    )
    return Request(_kind(NFT_MSG_NEWRULE), NLM_F.CREATE, body, f"add rule to {table}")


def _drop_reset() -> tuple[bytes, ...]:
    """Return ``tcp flags & rst != 0 drop``. Pure."""
    register = _number(NFTA_META_DREG, NFT_REG_1)  # each expression has it as its first attribute
    return (
        _expression("meta", register, _number(NFTA_META_KEY, NFT_META_L4PROTO)),
        _compare(NFT_CMP_EQ, socket.IPPROTO_TCP),
        _expression(
            "payload",
            register,
            _number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER),
            _number(NFTA_PAYLOAD_OFFSET, _TCP_FLAGS),
            _number(NFTA_PAYLOAD_LEN, 1),
        ),
        _expression(
            "bitwise",
            register,
            _number(NFTA_BITWISE_DREG, NFT_REG_1),
            _number(NFTA_BITWISE_LEN, 1),
            nest(NFTA_BITWISE_MASK, _byte(_RST)),
            nest(NFTA_BITWISE_XOR, _byte(0)),
        ),
        _compare(NFT_CMP_NEQ, 0),
        _expression(
            "immediate",
            _number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT),
            nest(NFTA_IMMEDIATE_DATA, nest(NFTA_DATA_VERDICT, _number(NFTA_VERDICT_CODE, NF_DROP))),
        ),
    )


def _compare(operation: int, value: int) -> bytes:
    return _expression(
        "cmp",
        _number(NFTA_CMP_SREG, NFT_REG_1),
        _number(NFTA_CMP_OP, operation),
        nest(NFTA_CMP_DATA, _byte(value)),
    )


def _byte(value: int) -> bytes:
    return attribute(NFTA_DATA_VALUE, bytes((value,)))


def _expression(name: str, *values: bytes) -> bytes:
    return nest(NFTA_LIST_ELEM, _text(NFTA_EXPR_NAME, name), nest(NFTA_EXPR_DATA, *values))


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
