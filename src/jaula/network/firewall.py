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
* a container speaks with its own MAC and IPv4 address only, and neither IPv6 nor any other
  protocol reaches another container or the host (no router advertisements, no ARP in another's
  name).

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
from ipaddress import IPv4Network

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


def ruleset(bridge: str, subnet: IPv4Network, endpoints: Iterable[Endpoint]) -> str:
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
    ip saddr != {subnet} drop
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
    type nat hook postrouting priority srcnat; policy accept;
    oifname != "{bridge}" ip saddr {subnet} masquerade
    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
    oifname "{bridge}" ip saddr {subnet} ct status dnat masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname != "{bridge}" accept
    iifname "{bridge}" accept
    ct state established,related accept
    ct status dnat accept
    drop
  }}
}}
"""


def bridge_ruleset(bridge: str, endpoints: Iterable[Endpoint]) -> str:
    """Replace the table that holds each port of the bridge to its own addresses."""
    name = table_name(bridge)
    rows = [_port(e) for e in endpoints]
    return f"""
table bridge {name} {{ }}
delete table bridge {name}
table bridge {name} {{
  set endpoints {{
    type ifname . ether_addr . ipv4_addr{_elements(rows)}
  }}
  chain prerouting {{
    type filter hook prerouting priority dstnat; policy accept;
    iifgroup != {port_group(bridge)} accept
    ether type ip iifname . ether saddr . ip saddr @endpoints accept
    ether type arp iifname . arp saddr ether . arp saddr ip @endpoints accept
    drop
  }}
}}
"""


def delete(bridge: str, *, bridge_family: bool = True) -> str:
    """Remove the tables, whether or not they are there."""
    name = table_name(bridge)
    families = ("ip", "bridge") if bridge_family else ("ip",)
    return "".join(
        f"table {family} {name} {{ }}\ndelete table {family} {name}\n" for family in families
    )


def missing(listing: str, bridge: str, bridge_family: bool) -> bool:
    """Whether a table of this bridge is not in the output of ``nft list tables``."""
    lines = listing.splitlines()
    families = ("ip", "bridge") if bridge_family else ("ip",)
    return any(f"table {family} {table_name(bridge)}" not in lines for family in families)


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
    return f"{verb} element bridge {table_name(bridge)} endpoints {{ {_port(endpoint)} }}\n"


def foreign_drops(listing: str, bridge: str) -> list[str]:
    """Forward chains of other tables with policy drop, from ``nft -j list chains``."""
    found = []
    for entry in json.loads(listing or "{}").get("nftables", ()):
        chain = entry.get("chain", {})
        own = chain.get("table") == table_name(bridge)
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
