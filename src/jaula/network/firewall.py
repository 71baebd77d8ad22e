"""The firewall of one bridge, as text for nft(8). Pure.

Everything is in tables of the engine's own, named after the bridge, one of family ip and one of
family bridge. Publishing a port or adding a container is one element of a map or set, so the cost
of a packet and of a change does not grow with their number.

What the rules grant, where BRIDGE is the engine's bridge and SUBNET its addresses:

* container to container and container to outside: allowed; outside sees the host's address.
* anything to a published port, at the addresses it is published on: goes to the container. From
  outside and from other containers that is decided in ``prerouting``, from the host itself in
  ``output``. A sender on the same subnet, or one that speaks as 127.0.0.1, is masqueraded, since
  the container would otherwise answer it directly, or answer its own loopback.
* outside to anything else of a container: dropped, also when another host routes SUBNET here.
* container to 127.0.0.0/8 of the host: dropped. The bridge has ``route_localnet`` so that the
  host's own loopback can reach a published port, and that alone would open the reverse way.
* a port published on 127.0.0.1 is not given to a packet that comes from another machine with that
  destination: loopback is translated in ``output`` only.
* a container speaks with its own MAC and addresses only, and no other protocol (nor IPv6, where
  the network has none) reaches another container or the host (no router advertisements, no ARP in
  another's name).

* from one bridge to another: dropped, unless it goes to a published port.
* an internal network: nothing leaves the bridge and nothing enters it, but for the host itself at
  the gateway's address. One without ``icc``: its containers do not reach each other, nor by
  published ports.
* IPv6, where the network has a subnet: the same, and no router advertisements or redirects, nor
  neighbour advertisements in another's name.

Facts about several firewalls: a packet must be accepted by every base chain of a hook; a drop is
final, an accept ends one chain only. So these rules need no other firewall's policy, but another
one whose forward policy is drop (iptables FORWARD DROP as Docker sets it, firewalld, ufw) cuts
containers off from outside, and a rule that lets BRIDGE pass must be added there. Nothing
here edits the tables of others; :func:`foreign_drops` finds them so that the engine can say so.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

import msgspec

from jaula.network.addresses import link_local
from jaula.spec.endpoint import Endpoint, PublishedPort

ANY = "0.0.0.0"
"""Every IPv4 address of the host."""


def table_name(bridge: str) -> str:
    """The name of a bridge's tables, never a keyword of nft."""
    return bridge if bridge.startswith("jaula") else f"jaula_{bridge}"


def port_group(bridge: str) -> int:
    """The interface group of a bridge's containers: how a rule of family bridge knows them.

    Not every kernel can ask for the bridge by name there (CONFIG_NFT_BRIDGE_META).
    """
    return zlib.crc32(bridge.encode()) or 1


class Limits(msgspec.Struct, frozen=True):
    """What a network's options change: see the module's text."""

    internal: bool = False
    icc: bool = True
    masquerade: bool = True


OPEN = Limits()


def ruleset(
    bridge: str, subnet: IPv4Network, endpoints: Iterable[Endpoint], limits: Limits = OPEN
) -> str:
    """Replace the ip table of this bridge, with the published ports of ``endpoints``."""
    endpoints = tuple(endpoints)
    name = table_name(bridge)
    exact = [_exact(e, b) for e in endpoints for b in e.ports if b.host_ip != ANY]
    every = [_every(e, b) for e in endpoints for b in e.ports if b.host_ip == ANY]
    return f"""
table ip {name} {{ }}
delete table ip {name}
table ip {name} {{
  map published {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service{_elements(exact)}
  }}
  map published_everywhere {{
    type inet_proto . inet_service : ipv4_addr . inet_service{_elements(every)}
  }}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "{bridge}" accept
    ip daddr 127.0.0.0/8 drop
    ip saddr != {subnet} drop{_only_inside(f"ip daddr != {subnet}", limits)}
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr 127.0.0.0/8 accept
    fib daddr type local jump translate
  }}
  chain output {{
    type nat hook output priority dstnat; policy accept;
    fib daddr type local jump translate
  }}
  chain translate {{
    dnat ip to ip daddr . meta l4proto . th dport map @published
    dnat ip to meta l4proto . th dport map @published_everywhere
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;{_masquerade(bridge, subnet, limits)}
    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
    oifname "{bridge}" ip saddr {subnet} ct status dnat masquerade
  }}
{_forward(bridge, limits)}
}}
"""


def ruleset6(bridge: str, subnet: IPv6Network, limits: Limits = OPEN) -> str:
    """Replace the ip6 table of this bridge. The host has one address for all of a ULA subnet."""
    name = table_name(bridge)
    inside = f"ip6 daddr != {{ {subnet}, fe80::/10, ff02::/16 }}"
    return f"""
table ip6 {name} {{ }}
delete table ip6 {name}
table ip6 {name} {{
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "{bridge}" accept
    ip6 saddr fe80::/10 ip6 daddr {{ {subnet}, fe80::/10, ff02::/16 }} accept
    ip6 saddr != {subnet} drop{_only_inside(inside, limits)}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;{_masquerade(bridge, subnet, limits)}
  }}
{_forward(bridge, limits)}
}}
"""


def _only_inside(elsewhere: str, limits: Limits) -> str:
    return f"\n    {elsewhere} drop" if limits.internal else ""


def _masquerade(bridge: str, subnet: IPv4Network | IPv6Network, limits: Limits) -> str:
    if limits.internal or not limits.masquerade:
        return ""
    family = "ip" if subnet.version == 4 else "ip6"
    return f'\n    oifname != "{bridge}" {family} saddr {subnet} masquerade'


def _forward(bridge: str, limits: Limits) -> str:
    among = f'iifname "{bridge}" oifname "{bridge}" accept'
    if limits.internal:
        rules = [
            f'iifname != "{bridge}" oifname != "{bridge}" accept',
            *([among] if limits.icc else []),
        ]
    else:
        rules = [
            f'oifname != "{bridge}" accept',
            f'iifname "{bridge}" {"accept" if limits.icc else "drop"}',
            "ct state established,related accept",
            "ct status dnat accept",
        ]
    lines = "\n    ".join(
        ("type filter hook forward priority filter; policy accept;", *rules, "drop")
    )
    return f"  chain forward {{\n    {lines}\n  }}"


def bridge_ruleset(
    bridge: str, endpoints: Iterable[Endpoint], limits: Limits = OPEN, *, ipv6: bool = False
) -> str:
    """Replace the table that holds each port of the bridge to its own addresses."""
    endpoints = tuple(endpoints)
    name = table_name(bridge)
    group = port_group(bridge)
    apart = (
        ""
        if limits.icc
        else f"""
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifgroup {group} oifgroup {group} drop
  }}"""
    )
    addresses6 = rules6 = ""
    if ipv6:
        rows6 = [row for e in endpoints for row in _port6(e)]
        addresses6 = f"""
  set endpoints6 {{
    type ifname . ether_addr . ipv6_addr{_elements(rows6)}
  }}"""
        rules6 = """
    icmpv6 type { nd-router-advert, nd-redirect } drop
    icmpv6 type nd-neighbor-advert iifname . ether saddr . icmpv6 taddr != @endpoints6 drop
    ether type ip6 iifname . ether saddr . ip6 saddr @endpoints6 accept"""
    return f"""
table bridge {name} {{ }}
delete table bridge {name}
table bridge {name} {{
  set endpoints {{
    type ifname . ether_addr . ipv4_addr{_elements([_port(e) for e in endpoints])}
  }}{addresses6}
  chain prerouting {{
    type filter hook prerouting priority dstnat; policy accept;
    iifgroup != {group} accept
    ether type ip iifname . ether saddr . ip saddr @endpoints accept
    ether type arp iifname . arp saddr ether . arp saddr ip @endpoints accept{rules6}
    drop
  }}{apart}
}}
"""


def delete(bridge: str, *, bridge_family: bool = True, ipv6: bool = False) -> str:
    """Remove the tables, whether or not they are there."""
    name = table_name(bridge)
    return "".join(
        f"table {family} {name} {{ }}\ndelete table {family} {name}\n"
        for family in _families(bridge_family, ipv6)
    )


def _families(bridge_family: bool, ipv6: bool) -> tuple[str, ...]:
    return ("ip", *(("ip6",) if ipv6 else ()), *(("bridge",) if bridge_family else ()))


def missing(listing: str, bridge: str, bridge_family: bool, ipv6: bool = False) -> bool:
    """Whether a table of this bridge is not in the output of ``nft list tables``."""
    lines = listing.splitlines()
    return any(
        f"table {family} {table_name(bridge)}" not in lines
        for family in _families(bridge_family, ipv6)
    )


def publish(bridge: str, endpoint: Endpoint, ports: Iterable[PublishedPort], *, verb: str) -> str:
    """Add (``verb`` 'add') or take away ('delete') the elements of published ports."""
    name = table_name(bridge)
    lines = []
    for port in ports:
        if port.host_ip == ANY:
            where, element = "published_everywhere", _every(endpoint, port)
        else:
            where, element = "published", _exact(endpoint, port)
        lines.append(f"{verb} element ip {name} {where} {{ {element} }}\n")
    return "".join(lines)


def admit(bridge: str, endpoint: Endpoint, *, verb: str) -> str:
    """Let an endpoint's interface speak with its addresses, or no longer ('delete')."""
    table = f"{verb} element bridge {table_name(bridge)}"
    lines = f"{table} endpoints {{ {_port(endpoint)} }}\n"
    if endpoint.ipv6:
        lines += f"{table} endpoints6 {{ {', '.join(_port6(endpoint))} }}\n"
    return lines


def foreign_drops(listing: str, *bridges: str) -> list[str]:
    """Forward chains of other tables with policy drop, from ``nft -j list chains``."""
    found = []
    tables = {table_name(bridge) for bridge in bridges}
    for entry in json.loads(listing or "{}").get("nftables", ()):
        chain = entry.get("chain", {})
        own = chain.get("table") in tables
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and not own:
            found.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return found


def _elements(rows: list[str]) -> str:
    return f"\n    elements = {{ {', '.join(rows)} }}" if rows else ""


def _exact(endpoint: Endpoint, port: PublishedPort) -> str:
    return f"{port.host_ip} . {_every(endpoint, port)}"


def _every(endpoint: Endpoint, port: PublishedPort) -> str:
    target = f"{endpoint.ipv4} . {port.container_port}"
    return f"{port.protocol} . {port.host_port} : {target}"


def _port(endpoint: Endpoint) -> str:
    return f'"{endpoint.host_interface}" . {endpoint.mac} . {endpoint.ipv4}'


def _port6(endpoint: Endpoint) -> list[str]:
    if not endpoint.ipv6:
        return []
    own = f'"{endpoint.host_interface}" . {endpoint.mac}'
    return [f"{own} . {endpoint.ipv6}", f"{own} . {link_local(endpoint.mac)}"]
