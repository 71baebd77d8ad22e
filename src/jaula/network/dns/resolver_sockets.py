"""The sockets of a container's resolver, opened inside its network namespace.

A socket belongs to the namespace in which it was opened, so the engine answers a container's
queries without a process there. The address is Docker's, 127.0.0.11. Port 53 stays free for the
container, which may run its own name server on every address: nftables rules in the namespace
redirect 127.0.0.11:53 to the ports of these sockets. The container may remove these rules; that
disables its own resolver only.
"""

from __future__ import annotations

import socket

from jaula.errors import JaulaError
from jaula.kernel.netlink import in_netns
from jaula.network.firewall.nft_command import open_nft

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "jaula_dns"


def open_sockets(netns_fd: int, *, new: bool = False) -> tuple[socket.socket, socket.socket]:
    """Open a UDP and a TCP socket in a network namespace and redirect port 53 to them.

    Rules for former sockets are replaced, which takes the kernel 15 ms; a ``new`` namespace has
    none.

    :raises JaulaError: when a socket cannot be opened or a rule is refused.
    """
    sockets: list[socket.socket] = []
    try:
        with in_netns(netns_fd):
            for type_ in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                sock = socket.socket(socket.AF_INET, type_ | socket.SOCK_NONBLOCK)
                sockets.append(sock)
                sock.bind((ADDRESS, 0))
            sockets[1].listen(16)
            nft = open_nft()
            try:
                udp, tcp = (sock.getsockname()[1] for sock in sockets)
                nft.run(ruleset(udp, tcp) if new else replacing_ruleset(udp, tcp))
            finally:
                nft.close()
    except (OSError, JaulaError) as exc:
        for sock in sockets:
            sock.close()
        raise JaulaError(f"cannot open the container's resolver: {exc}") from exc
    return sockets[0], sockets[1]


def replacing_ruleset(udp: int, tcp: int) -> str:
    """Return commands that replace the table."""
    return f"table ip {TABLE} {{ }}\ndelete table ip {TABLE}\n{ruleset(udp, tcp)}"


def ruleset(udp: int, tcp: int) -> str:
    """Return a table that redirects port 53 of the resolver's address to two ports."""
    return f"""
table ip {TABLE} {{
  chain output {{
    type nat hook output priority dstnat; policy accept;
    ip daddr {ADDRESS} udp dport {PORT} dnat to {ADDRESS}:{udp}
    ip daddr {ADDRESS} tcp dport {PORT} dnat to {ADDRESS}:{tcp}
  }}
}}
"""
