"""Noticing that another program has changed the firewall.

A reload of the host's own firewall (``nft flush ruleset``, as Debian's nftables.service does)
removes every table, the engine's too. The kernel announces that on a multicast group of
NETLINK_NETFILTER (include/uapi/linux/netfilter/nfnetlink.h). The engine waits for this object to
become readable and has the manager repair what is gone.
"""

from __future__ import annotations

import errno
import socket
import struct

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFT_MSG_DELTABLE = (10 << 8) | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE

_header = struct.Struct("=IHHII")  # nlmsghdr: len, type, flags, seq, pid


class FirewallMonitor:
    """A socket that becomes readable when rules change; for ``loop.add_reader``."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def table_deleted(self) -> bool:
        """Read all news; whether some table was deleted, or news were lost."""
        found = False
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return found
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            found = found or NFT_MSG_DELTABLE in message_types(data)


def message_types(data: bytes) -> list[int]:
    """Types of the netlink messages in a datagram; what is cut short is left out."""
    types = []
    offset = 0
    while offset + _header.size <= len(data):
        length, kind, _, _, _ = _header.unpack_from(data, offset)
        if length < _header.size or offset + length > len(data):
            break
        types.append(kind)
        offset += (length + 3) & ~3
    return types
