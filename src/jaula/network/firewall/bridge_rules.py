"""The firewall of one bridge, as text for nft(8). Pure.

Everything is in tables of the engine's own, named after the bridge: one of family ip, one of ip6
where the network has IPv6. One of family bridge is for all bridges together
(:mod:`jaula.network.firewall.antispoof`). Publishing a port or adding a container is an element of a map or
set, so the cost of a packet and of a change does not grow with their number.

What the rules grant, where BRIDGE is the engine's bridge and SUBNET its addresses:

* container to container and container to outside: allowed; outside sees the host's address.
* anything to a published port, at the addresses it is published on, goes to the container if the
  host's own input rules let it come in (:mod:`jaula.network.firewall.bridge_rules`). A sender on the same
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
  the bridge itself keeps them apart (:mod:`jaula.network.drivers.bridge`).

Facts about several firewalls: a packet must be accepted by every base chain of a hook; a drop is
final, an accept ends one chain only. So these rules need no other firewall's policy, but another
one whose forward policy is drop (iptables FORWARD DROP as Docker sets it, firewalld, ufw) cuts
containers off from outside, and a rule that lets BRIDGE pass must be added there. Nothing
here edits the tables of others; :func:`foreign_drops` finds them so that the engine can say so.


Published ports as text for nft(8): how packets to them pass the host's own firewall. Pure.

A packet to a published port is one to the host. Where it is translated in ``prerouting``, as Docker
does, it is forwarded and no rule of the host's input chains ever sees it. So it is not. It goes up
like any other to the end of ``input``, past every rule that the host has there, whoever wrote it
and with whatever program (nft, iptables, ufw, firewalld, fail2ban). What comes through is handed
over by the chain ``judged``, the last of that hook:

* ``dup`` makes a copy and sends it out by ``lo``, the packet itself is dropped. A copy is untracked
  and has a sender that is not of this host; no other packet that leaves by ``lo`` is both.
* ``handed`` sees the copy in ``output``, before connections are tracked, and has it tracked like
  a packet that just began to be (``ct zone set`` replaces the mark "untracked" by a template).
* ``output`` translates it, as it does for the host's own programs, and the kernel routes it anew,
  to the container, with the sender's address.

That is the way of a connection's first packet. The rest belongs to a tracked connection, is
translated before it is routed, and forwarded at full speed. If this table is gone nothing is
translated, so nothing passes. Until there was an answer, ``again`` hands over what follows as well:
forward rules that let established connections pass would drop it, for datagrams that are
never answered for ever.

Facts about ``dup``: it lowers the time to live by one and sets "don't fragment", which is taken
back here so that a first datagram larger than the bridge's MTU arrives. ``oifname`` in ``output``
is that of the first route, so to a host that filters what leaves, the copy is traffic on ``lo``.

With ``past_firewall`` ports are translated in ``prerouting``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

import msgspec

from jaula.spec.endpoint import ANY, ANY6, Endpoint, PublishedPort

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
    ports = port_chains(
        family, closed_to, past_firewall=limits.past_firewall, handed=limits.hands_over
    )
    leaving = ""
    if limits.masquerade and not limits.internal:
        leaving = f'\n    oifname != "{bridge}" {family.name} saddr {subnet} masquerade'
    return f"""
table {family.name} {name} {{ }}
delete table {family.name} {name}
table {family.name} {name} {{{port_maps(family, tuple(endpoints))}
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


LAST_PRIORITY = 2147483000
"""The priority of what sees a packet after everybody else; conntrack's own is INT_MAX."""


class Family(NamedTuple):
    """What differs between the two: nft's words and addresses."""

    name: str
    address: str
    any: str
    loopback: str
    gate: str  # an address whose route is by lo
    may_fragment: str


IP = Family("ip", "ipv4_addr", ANY, "127.0.0.0/8", "127.0.0.1",
            " ip frag-off set ip frag-off & 0xbfff")  # fmt: skip
IP6 = Family("ip6", "ipv6_addr", ANY6, "::1", "::1", "")


def address_family(port: PublishedPort) -> Family:
    """The family of the host's address that a port is published on."""
    return IP6 if ":" in port.host_ip else IP


def port_maps(family: Family, endpoints: Iterable[Endpoint]) -> str:
    """The maps from the host's ports to containers', and sets of the same keys.

    A map answers only where it translates, so ``judged`` asks the sets.
    """
    held: dict[str, list[str]] = {}
    for endpoint in endpoints:
        for port in endpoint.ports:
            if address_family(port) is family:
                for name, element in _elements(endpoint, port):
                    held.setdefault(name, []).append(element)
    key, target = (
        f"{family.address} . inet_proto . inet_service",
        f"{family.address} . inet_service",
    )
    return f"""
  map published {{
    type {key} : {target}{set_elements(held.get("published", []))}
  }}
  map published_everywhere {{
    type inet_proto . inet_service : {target}{set_elements(held.get("published_everywhere", []))}
  }}
  set open {{
    type {key}{set_elements(held.get("open", []))}
  }}
  set open_everywhere {{
    type inet_proto . inet_service{set_elements(held.get("open_everywhere", []))}
  }}"""


def port_chains(
    family: Family, closed_to: Iterable[str], *, past_firewall: bool, handed: bool
) -> str:
    """The chains of both ways. ``closed_to`` are conditions of packets that get no port.

    Without ``handed`` and ``past_firewall`` only the host's own programs reach a port.
    """
    f, keys = family, f"{family.name} daddr . meta l4proto . th dport"
    text = f"""
  chain output {{
    type nat hook output priority dstnat; policy accept;{_own_loopback(family)}
    fib daddr type local jump translate
  }}
  chain translate {{
    dnat {f.name} to {keys} map @published
    dnat {f.name} to meta l4proto . th dport map @published_everywhere
  }}"""
    if past_firewall:
        return f"""{text}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {f.name} daddr {f.loopback} accept
    fib daddr type local jump translate
  }}"""
    if not handed:
        return text
    closed = "".join(f"\n    {condition} accept" for condition in closed_to)
    return f"""{text}
  chain judged {{
    type filter hook input priority {LAST_PRIORITY}; policy accept;
    ct state established,related,invalid accept
    iifname "lo" accept
    {f.name} daddr {f.loopback} accept{closed}
    fib daddr type local jump hand_over
  }}
  chain again {{
    type filter hook prerouting priority mangle; policy accept;
    ct state new ct status dnat iifname != "lo" fib daddr type local jump hand_over
  }}
  chain hand_over {{
    {keys} @open dup to {f.gate} device "lo" drop
    meta l4proto . th dport @open_everywhere dup to {f.gate} device "lo" drop
  }}
  chain handed {{
    type filter hook output priority raw; policy accept;
    oifname "lo" ct state untracked fib saddr type != local{f.may_fragment} ct zone set 0
  }}"""


def _own_loopback(family: Family) -> str:
    """The kernel takes no answer that comes from elsewhere for ::1, so that is left alone."""
    return "\n    ip6 daddr ::1 accept" if family is IP6 else ""


def port_elements(
    table: str, endpoint: Endpoint, ports: Iterable[PublishedPort], *, verb: str
) -> str:
    """Add (``verb`` 'add') or take away ('delete') the elements of published ports."""
    held: dict[tuple[str, str], list[str]] = {}
    for port in ports:
        for name, element in _elements(endpoint, port):
            held.setdefault((address_family(port).name, name), []).append(element)
    return "".join(
        f"{verb} element {family} {table} {name} {{ {', '.join(rows)} }}\n"
        for (family, name), rows in held.items()
    )


def _elements(endpoint: Endpoint, port: PublishedPort) -> tuple[tuple[str, str], ...]:
    """(set or map, element) of one port."""
    family = address_family(port)
    key, where = f"{port.protocol} . {port.host_port}", "_everywhere"
    if port.host_ip != family.any:
        key, where = f"{port.host_ip} . {key}", ""
    inside = endpoint.ipv6 if family is IP6 else endpoint.ipv4
    if not inside:  # a relay leads there
        return ()
    target = f"{inside} . {port.container_port}"
    return (f"published{where}", f"{key} : {target}"), (f"open{where}", key)


def set_elements(rows: list[str]) -> str:
    """The elements of a set or map where it is declared."""
    return f"\n    elements = {{ {', '.join(rows)} }}" if rows else ""
