"""The network of a honeypot: one link between the container and the sink's network namespace.

The sink's namespace has no other link, so no packet of the container can leave the host, whatever
the host's firewall and routes say. In it every address is local, which is an ordinary route
(``ip route add local default dev lo``), and nftables sends every TCP connection and UDP datagram to
two sockets of the sink by TPROXY (Documentation/networking/tproxy.rst), which keeps the original
destination. The kernel answers pings of every address.
"""

from __future__ import annotations

import os
import socket

from jaula.features.honeypot.run_directory import (
    ADDRESS,
    ADDRESS6,
    GATEWAY,
    GATEWAY6,
    INTERFACE,
    PREFIX,
    PREFIX6,
    SINK_INTERFACE,
)
from jaula.kernel.netlink import in_netns
from jaula.kernel.rtnetlink import (
    Rtnetlink,
    add_address,
    add_default_route,
    add_local_routes,
    add_veth,
    set_link,
)
from jaula.network.endpoint_config import has_ipv6, write_sysctl
from jaula.network.firewall.nft_command import open_nft

MAC = "02:42:ac:11:00:02"
TCP_PORT, UDP_PORT = 65001, 65002  # of the sink's sockets
MTU = 1500

_RULES = f"""
table inet sink {{
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    iifname "{SINK_INTERFACE}" meta nfproto ipv4 meta l4proto tcp tproxy ip to :{TCP_PORT} accept
    iifname "{SINK_INTERFACE}" meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :{TCP_PORT} accept
    iifname "{SINK_INTERFACE}" meta nfproto ipv4 meta l4proto udp tproxy ip to :{UDP_PORT} accept
    iifname "{SINK_INTERFACE}" meta nfproto ipv6 meta l4proto udp tproxy ip6 to :{UDP_PORT} accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
  }}
}}
"""


def connect(sink: int, container: int) -> None:
    """Create the link and configure both ends. The arguments are descriptors of namespaces.

    :raises OSError: when the kernel refuses a request.
    :raises JaulaError: when nftables refuses the rules.
    """
    ipv6 = has_ipv6()
    with in_netns(sink):
        write_sysctl("ipv4/ip_unprivileged_port_start", "0")
        with Rtnetlink() as netlink:
            netlink.send(
                add_veth(
                    SINK_INTERFACE,
                    mtu=MTU,
                    peer_name=INTERFACE,
                    peer_netns=container,
                    peer_mac=MAC,
                )
            )
        for name in ("all", "default", SINK_INTERFACE):
            write_sysctl(f"ipv4/conf/{name}/rp_filter", "0")
        _set_ipv6(SINK_INTERFACE, ipv6)
        with Rtnetlink() as netlink:
            loopback, link = netlink.link("lo"), netlink.link(SINK_INTERFACE)
            assert loopback is not None
            assert link is not None
            netlink.send(
                set_link("lo", up=True),
                set_link(link.index, no_link_local=True),
                set_link(link.index, up=True),
                add_address(link.index, GATEWAY, PREFIX),
                *add_local_routes(loopback.index, link.index, ADDRESS),
            )
            if ipv6:
                netlink.send(
                    add_address(link.index, GATEWAY6, PREFIX6),
                    *add_local_routes(loopback.index, link.index, ADDRESS6),
                )
        nft = open_nft()
        try:
            nft.run(_RULES)
        finally:
            nft.close()
    with in_netns(container):
        _set_ipv6(INTERFACE, ipv6)
        with Rtnetlink() as netlink:
            link = netlink.link(INTERFACE)
            assert link is not None
            netlink.send(
                set_link("lo", up=True),
                set_link(link.index, no_link_local=True),
                set_link(link.index, up=True),
                add_address(link.index, ADDRESS, PREFIX),
                add_default_route(GATEWAY),
            )
            if ipv6:
                netlink.send(
                    add_address(link.index, ADDRESS6, PREFIX6), add_default_route(GATEWAY6)
                )


def _set_ipv6(interface: str, ipv6: bool) -> None:
    if ipv6:
        for name in ("accept_ra", "autoconf", "accept_redirects", "accept_dad"):
            write_sysctl(f"ipv6/conf/{interface}/{name}", "0")
        write_sysctl(f"ipv6/conf/{interface}/disable_ipv6", "0")


IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR = 20, 74


def sockets() -> tuple[list[socket.socket], list[socket.socket]]:
    """Return the listening TCP and the UDP sockets of the sink, in the caller's namespace.

    Needs CAP_NET_ADMIN there.

    :raises OSError: when the kernel refuses one.
    """
    tcp, udp = [], []
    for family in (socket.AF_INET, socket.AF_INET6) if has_ipv6() else (socket.AF_INET,):
        six = family == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        for kind, port in ((socket.SOCK_STREAM, TCP_PORT), (socket.SOCK_DGRAM, UDP_PORT)):
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(level, IPV6_TRANSPARENT if six else IP_TRANSPARENT, 1)
            if six:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_DGRAM:
                sock.setsockopt(level, IPV6_RECVORIGDSTADDR if six else IP_RECVORIGDSTADDR, 1)
            sock.bind(("::" if six else "0.0.0.0", port))
            if kind == socket.SOCK_STREAM:
                sock.listen(128)
                tcp.append(sock)
            else:
                udp.append(sock)
    return tcp, udp


def published(host_ip: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on a published port, in the caller's namespace.

    :raises OSError: when the port is in use.
    """
    addresses = [host_ip] if host_ip else ["0.0.0.0", *(["::"] if has_ipv6() else [])]
    result = []
    try:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            result.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address, port))
            sock.listen(64)
    except OSError as error:
        for sock in result:
            sock.close()
        raise OSError(
            error.errno, f"port {port} of {address}: {os.strerror(error.errno or 0)}"
        ) from error
    return result
