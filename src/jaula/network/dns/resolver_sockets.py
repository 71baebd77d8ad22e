"""The sockets of a container's resolver, opened inside its network namespace.

A socket belongs to the namespace in which it was opened, so the engine answers a container's
questions without a process there. The address is Docker's, 127.0.0.11. Port 53 is left to the
container, which may run a name server of its own on every address: rules in its namespace lead
what is sent to 127.0.0.11:53 to the ports that these sockets have. They are the container's to
remove; that closes its own resolver.
"""

from __future__ import annotations

import socket

from jaula.errors import JaulaError
from jaula.kernel.netlink import visiting
from jaula.network.firewall.nftables import open_nft

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "jaula_dns"


def open_sockets(netns_fd: int, *, new: bool = False) -> tuple[socket.socket, socket.socket]:
    """A datagram socket and a listening one in that namespace, which port 53 leads to.

    What was there for sockets of before is replaced, which takes the kernel 15 ms; a ``new``
    namespace has nothing. Raises ``JaulaError``.
    """
    opened: list[socket.socket] = []
    try:
        with visiting(netns_fd):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
                opened.append(made)
                made.bind((ADDRESS, 0))
            opened[1].listen(16)
            nft = open_nft()
            try:
                udp, tcp = (sock.getsockname()[1] for sock in opened)
                nft.run(ruleset(udp, tcp) if new else replacing_ruleset(udp, tcp))
            finally:
                nft.close()
    except (OSError, JaulaError) as exc:
        for made in opened:
            made.close()
        raise JaulaError(f"cannot open the container's resolver: {exc}") from exc
    return opened[0], opened[1]


def replacing_ruleset(udp: int, tcp: int) -> str:
    """The same in place of what is there."""
    return f"table ip {TABLE} {{ }}\ndelete table ip {TABLE}\n{ruleset(udp, tcp)}"


def ruleset(udp: int, tcp: int) -> str:
    """A table that leads port 53 of the resolver's address to two other ports."""
    return f"""
table ip {TABLE} {{
  chain output {{
    type nat hook output priority dstnat; policy accept;
    ip daddr {ADDRESS} udp dport {PORT} dnat to {ADDRESS}:{udp}
    ip daddr {ADDRESS} tcp dport {PORT} dnat to {ADDRESS}:{tcp}
  }}
}}
"""
