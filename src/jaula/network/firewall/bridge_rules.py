"""The firewall of one bridge, as text for nft(8). Pure.

Everything is in tables of the engine's own, named after the bridge: one of family ip, one of ip6
where the network has IPv6. One of family bridge is for all bridges together
(:mod:`jaula.network.firewall.antispoof_rules`). Publishing a port or adding a container is an element of a map or
set, so the cost of a packet and of a change does not grow with their number.

What the rules grant, where BRIDGE is the engine's bridge and SUBNET its addresses:

* container to container and container to outside: allowed; outside sees the host's address.
* anything to a published port, at the addresses it is published on, goes to the container if the
  host's own input rules let it come in (:mod:`jaula.network.ports.rules`). A sender on the same
  subnet, or one that speaks as 127.0.0.1, is masqueraded, since the container would otherwise
  answer it directly, or answer its own loopback.
* outside to anything else of a container: dropped, also when another host routes SUBNET here.
* container to 127.0.0.0/8 of the host: dropped. The bridge has ``route_localnet`` so that the
  host's own loopback can reach a published port, and that alone would open the reverse way.
* a port published on 127.0.0.1 is not given to a packet that comes from another machine with that
  destination: loopback is translated for the host's own programs only.
* from one bridge to another: dropped, unless it goes to a published port.
* an internal network: nothing leaves the bridge and nothing enters it, but for the host itself at
  the gateway's address; published ports are not given to it (its bridge is of the interface group
  INTERNAL). One without ``icc``: its containers do not reach each other, nor by published ports;
  the bridge itself keeps them apart (:mod:`jaula.network.bridge`).

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

from jaula.network.ports import rules as port_rules
from jaula.network.ports.rules import IP, IP6, Family
from jaula.spec.endpoint import Endpoint

INTERNAL_GROUP = zlib.crc32(b"jaula internal")
"""The interface group of bridges of internal networks."""


def table_name(bridge: str) -> str:
    """The name of a bridge's tables, never a keyword of nft."""
    return bridge if bridge.startswith("jaula") else f"jaula_{bridge}"


class Limits(msgspec.Struct, frozen=True):
    """What a network's options change: see the module's text.

    ``hands_over`` is False where the kernel cannot: then only the host itself reaches ports.
    """

    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    past_firewall: bool = False
    hands_over: bool = True


OPEN = Limits()


def ruleset(
    bridge: str, subnet: IPv4Network, endpoints: Iterable[Endpoint], limits: Limits = OPEN
) -> str:
    """Replace the ip table of this bridge, with the published ports of ``endpoints``."""
    guard = f"""
    iifname != "{bridge}" accept
    ip daddr 127.0.0.0/8 drop
    ip saddr != {subnet} drop{_only_inside(f"ip daddr != {subnet}", limits)}"""
    own = f'\n    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade'
    return _table(IP, bridge, str(subnet), endpoints, limits, guard, own)


def ruleset6(
    bridge: str, subnet: IPv6Network, limits: Limits = OPEN, endpoints: Iterable[Endpoint] = ()
) -> str:
    """Replace the ip6 table of this bridge. The host has one address for all of a ULA subnet."""
    inside = f"{{ {subnet}, fe80::/10, ff02::/16 }}"
    guard = f"""
    iifname != "{bridge}" accept
    ip6 saddr fe80::/10 ip6 daddr {inside} accept
    ip6 saddr != {subnet} drop{_only_inside(f"ip6 daddr != {inside}", limits)}"""
    return _table(IP6, bridge, str(subnet), endpoints, limits, guard, "")


def _table(
    family: Family,
    bridge: str,
    subnet: str,
    endpoints: Iterable[Endpoint],
    limits: Limits,
    guard: str,
    own: str,
) -> str:
    name = table_name(bridge)
    closed_to = [f"iifgroup {INTERNAL_GROUP}", *([] if limits.icc else [f'iifname "{bridge}"'])]
    ports = port_rules.port_chains(
        family, closed_to, past_firewall=limits.past_firewall, handed=limits.hands_over
    )
    leaving = ""
    if limits.masquerade and not limits.internal:
        leaving = f'\n    oifname != "{bridge}" {family.name} saddr {subnet} masquerade'
    return f"""
table {family.name} {name} {{ }}
delete table {family.name} {name}
table {family.name} {name} {{{port_rules.port_maps(family, tuple(endpoints))}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;{guard}
  }}{ports}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;{leaving}{own}
    oifname "{bridge}" {family.name} saddr {subnet} ct status dnat masquerade
  }}
{_forward(bridge, limits)}
}}
"""


def _only_inside(elsewhere: str, limits: Limits) -> str:
    return f"\n    {elsewhere} drop" if limits.internal else ""


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


def delete(bridge: str, *, ipv6: bool = False) -> str:
    """Remove the tables, whether or not they are there."""
    name = table_name(bridge)
    return "".join(
        f"table {family} {name} {{ }}\ndelete table {family} {name}\n" for family in _families(ipv6)
    )


def _families(ipv6: bool) -> tuple[str, ...]:
    return ("ip", "ip6") if ipv6 else ("ip",)


def tables_missing(listing: str, bridge: str, ipv6: bool = False) -> bool:
    """Whether a table of this bridge is not in the output of ``nft list tables``."""
    lines = listing.splitlines()
    return any(f"table {family} {table_name(bridge)}" not in lines for family in _families(ipv6))


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
