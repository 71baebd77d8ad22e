"""The nftables rules of one bridge: isolation, masquerading and published ports. Pure.

All rules are in tables of the engine's own, named after the bridge: one of the family ip, and one
of the family ip6 if the network has IPv6. One table of the family bridge serves all bridges
(:mod:`jaula.network.firewall.antispoof`). A published port or a container is an element of a map or
a set, so the cost of a packet and of a change does not grow with their number.

What the rules allow; BRIDGE is the engine's bridge and SUBNET its addresses:

* Container to container, and container to outside: allowed. Outside sees the host's address. *
Anything to a published port, at the addresses that it is published on: forwarded to the container
if the host's own input rules accept it (see below). A sender on the same subnet, or with the source
address 127.0.0.1, is masqueraded. Otherwise the container would answer it directly, or answer its
own loopback. * Outside to any other port of a container: dropped, even if another host routes
SUBNET here. * Container to 127.0.0.0/8 of the host: dropped. The bridge has ``route_localnet``, so
that the host's loopback can reach a published port; that alone would open the reverse direction. *
A packet from another machine to a port published on 127.0.0.1: not forwarded. Loopback addresses
are translated for the host's own programs only. * One bridge to another: dropped, except to a
published port. * An internal network: nothing leaves or enters the bridge, except the host at the
gateway's address. Published ports are not reachable from it (its bridge is in the interface group
INTERNAL). * A network without ``icc``: its containers cannot reach each other, not even through
published ports. The bridge isolates its ports (:mod:`jaula.network.drivers.bridge`).

Facts about several firewalls: a packet must be accepted by every base chain of a hook. A drop is
final; an accept ends one chain only. So these rules do not depend on another firewall's policy. But
a forward policy of drop (iptables FORWARD DROP as Docker sets it, firewalld, ufw) blocks containers
from outside, and needs a rule that accepts BRIDGE. The engine never edits tables of other programs;
:func:`foreign_drops` finds such chains for a warning.

**Published ports pass the host's input rules.** A packet to a published port is addressed to the
host. Docker translates it in ``prerouting``, so it is forwarded and the host's input chains never
see it. Here the packet goes to the end of ``input``, through every rule that the host has there,
whichever program wrote it (nft, iptables, ufw, firewalld, fail2ban). The chain ``judged``, the last
one of that hook, redirects what was accepted:

* ``dup`` sends a copy out by ``lo`` and the packet itself is dropped. The copy is untracked and its
  source is not an address of this host. No other packet that leaves by ``lo`` has both properties.
* The chain ``handed`` sees the copy in ``output`` before connection tracking, and has it tracked
  like a new packet (``ct zone set`` replaces the mark "untracked" by a template).
* The chain ``output`` translates it as it does for the host's own programs. The kernel routes it
  again, to the container, with the sender's address.

Only the first packet of a connection takes this way. The others belong to a tracked connection:
they are translated before routing and forwarded at full speed. Without this table nothing is
translated, so no packet reaches a container. Until the container answers, the chain ``again`` sends
further packets the same way. Otherwise forward rules that accept established connections would drop
them: forever, for datagrams that are never answered.

Facts about ``dup``: it decrements the time to live and sets "don't fragment". The rules clear that
flag, so that a first datagram larger than the bridge's MTU arrives. A kernel that refuses such a
rule in a user namespace loses this datagram. ``oifname`` in ``output`` is
the interface of the first route: a host that filters outgoing packets sees the copy on ``lo``.

With ``past_firewall`` ports are translated in ``prerouting``, like Docker's.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

import msgspec

from jaula.spec.endpoint_record import ANY, ANY6, Endpoint, PublishedPort

INTERNAL_GROUP = zlib.crc32(b"jaula internal")
"""The interface group of bridges of internal networks."""


def table_name(bridge: str) -> str:
    """Return the name of a bridge's tables, which is never a keyword of nft."""
    return bridge if bridge.startswith("jaula") else f"jaula_{bridge}"


class Limits(msgspec.Struct, frozen=True):
    """The firewall options of a network; the module's text explains them.

    ``fragments`` is False if the kernel refuses rules that write to the IP header, as Linux 6.18.44
    does in a user namespace. ``hands_over`` is False if it lacks ``dup`` or conntrack zones. Then
    only the host itself can reach published ports.
    """

    internal: bool = False
    icc: bool = True
    masquerade: bool = True
    past_firewall: bool = False
    fragments: bool = True
    hands_over: bool = True


OPEN = Limits()


def within_kernel(limits: Limits) -> Iterator[Limits]:
    """Yield ``limits``, then what is left of them on kernels that can do less.

    The first ruleset that the kernel accepts is the one to load.
    """
    yield limits
    if limits.past_firewall or not limits.hands_over:
        return
    if limits.fragments:
        yield msgspec.structs.replace(limits, fragments=False)
    yield msgspec.structs.replace(limits, fragments=False, hands_over=False)


def ruleset(
    bridge: str, subnet: IPv4Network | None, endpoints: Iterable[Endpoint], limits: Limits = OPEN
) -> str:
    """Return commands that replace the ip table, with the published ports of ``endpoints``.

    Without a ``subnet`` the bridge has no IPv4, and the table drops all of it.
    """
    if subnet is None:
        return _closed(bridge)
    antispoof_rules = f"""
    iifname != "{bridge}" accept
    ip daddr 127.0.0.0/8 drop
    ip saddr != {subnet} drop{_only_inside(f"ip daddr != {subnet}", limits)}"""
    own_rules = f'\n    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade'
    return _table(IP, bridge, str(subnet), endpoints, limits, antispoof_rules, own_rules)


def ruleset6(
    bridge: str, subnet: IPv6Network, limits: Limits = OPEN, endpoints: Iterable[Endpoint] = ()
) -> str:
    """Return commands that replace the ip6 table.

    The host has one address for all of a ULA subnet.
    """
    local = f"{{ {subnet}, fe80::/10, ff02::/16 }}"
    antispoof_rules = f"""
    iifname != "{bridge}" accept
    ip6 saddr fe80::/10 ip6 daddr {local} accept
    ip6 saddr != {subnet} drop{_only_inside(f"ip6 daddr != {local}", limits)}"""
    return _table(IP6, bridge, str(subnet), endpoints, limits, antispoof_rules, "")


def _closed(bridge: str) -> str:
    name = table_name(bridge)
    return f"""
table ip {name} {{ }}
delete table ip {name}
table ip {name} {{
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" drop
  }}
  chain postrouting {{
    type filter hook postrouting priority filter; policy accept;
    oifname "{bridge}" drop
  }}
}}
"""


def _table(
    family: Family,
    bridge: str,
    subnet: str,
    endpoints: Iterable[Endpoint],
    limits: Limits,
    antispoof_rules: str,
    own_rules: str,
) -> str:
    name = table_name(bridge)
    excluded = [f"iifgroup {INTERNAL_GROUP}", *([] if limits.icc else [f'iifname "{bridge}"'])]
    ports = port_chains(family, excluded, limits)
    masquerade_rule = ""
    if limits.masquerade and not limits.internal:
        masquerade_rule = f'\n    oifname != "{bridge}" {family.name} saddr {subnet} masquerade'
    return f"""
table {family.name} {name} {{ }}
delete table {family.name} {name}
table {family.name} {name} {{{port_maps(family, tuple(endpoints))}
  chain guard {{
    type filter hook prerouting priority raw; policy accept;{antispoof_rules}
  }}{ports}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;{masquerade_rule}{own_rules}
    oifname "{bridge}" {family.name} saddr {subnet} ct status dnat masquerade
  }}
{_forward(family, bridge, limits)}
}}
"""


def _only_inside(outside: str, limits: Limits) -> str:
    return f"\n    {outside} drop" if limits.internal else ""


def _forward(family: Family, bridge: str, limits: Limits) -> str:
    within_bridge = f'iifname "{bridge}" oifname "{bridge}" accept'
    if limits.internal:
        rules = [
            f'iifname != "{bridge}" oifname != "{bridge}" accept',
            *([within_bridge] if limits.icc else []),
        ]
    else:
        rules = [
            f'oifname != "{bridge}" accept',
            f'iifname "{bridge}" {"accept" if limits.icc else "drop"}',
            "ct state established,related accept",
            "ct status dnat accept",
        ]
    if family is IP6:  # neighbour discovery and multicast reports belong to one link (RFC 4861)
        ends = f'iifname "{bridge}" oifname != "{bridge}"'
        rules.insert(0, f"{ends} icmpv6 type {{ 130-137, 143 }} drop")
    lines = "\n    ".join(
        ("type filter hook forward priority filter; policy accept;", *rules, "drop")
    )
    return f"  chain forward {{\n    {lines}\n  }}"


def delete(bridge: str, *, ipv6: bool = False) -> str:
    """Return commands that remove the tables, present or not."""
    name = table_name(bridge)
    return "".join(
        f"table {family} {name} {{ }}\ndelete table {family} {name}\n" for family in _families(ipv6)
    )


def _families(ipv6: bool) -> tuple[str, ...]:
    return ("ip", "ip6") if ipv6 else ("ip",)


def tables_missing(listing: str, bridge: str, ipv6: bool = False) -> bool:
    """Return whether a table of this bridge is missing in the output of ``nft list tables``."""
    lines = listing.splitlines()
    return any(f"table {family} {table_name(bridge)}" not in lines for family in _families(ipv6))


def foreign_drops(listing: str, *bridges: str) -> list[str]:
    """Return forward chains of other tables with policy drop, from ``nft -j list chains``."""
    result = []
    tables = {table_name(bridge) for bridge in bridges}
    for entry in json.loads(listing or "{}").get("nftables", ()):
        chain = entry.get("chain", {})
        own = chain.get("table") in tables
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and not own:
            result.append(f"{chain['family']} {chain['table']} {chain['name']}")
    return result


LAST_PRIORITY = 2147483000
"""Priority after all other programs' chains; conntrack's own is INT_MAX."""


class Family(NamedTuple):
    """The keywords and addresses that differ between IPv4 and IPv6."""

    name: str
    address: str
    any: str
    loopback: str
    gate: str  # an address that is routed by lo
    may_fragment: str


IP = Family("ip", "ipv4_addr", ANY, "127.0.0.0/8", "127.0.0.1",
            " ip frag-off set ip frag-off & 0xbfff")  # fmt: skip
IP6 = Family("ip6", "ipv6_addr", ANY6, "::1", "::1", "")


def address_family(port: PublishedPort) -> Family:
    """Return the address family of the host address that a port is published on."""
    return IP6 if ":" in port.host_ip else IP


def port_maps(family: Family, endpoints: Iterable[Endpoint]) -> str:
    """Return the maps from host ports to container ports, and sets of the same keys.

    A map can only be used to translate, so the chain ``hand_over`` tests the sets.
    """
    elements: dict[str, list[str]] = {}
    for endpoint in endpoints:
        for port in endpoint.ports:
            if address_family(port) is family:
                for name, element in _elements(endpoint, port):
                    elements.setdefault(name, []).append(element)
    everywhere = set_elements(elements.get("published_everywhere", []))
    key, target = (
        f"{family.address} . inet_proto . inet_service",
        f"{family.address} . inet_service",
    )
    return f"""
  map published {{
    type {key} : {target}{set_elements(elements.get("published", []))}
  }}
  map published_everywhere {{
    type inet_proto . inet_service : {target}{everywhere}
  }}
  set open {{
    type {key}{set_elements(elements.get("open", []))}
  }}
  set open_everywhere {{
    type inet_proto . inet_service{set_elements(elements.get("open_everywhere", []))}
  }}"""


def port_chains(family: Family, excluded: Iterable[str], limits: Limits) -> str:
    """Return the chains for published ports. ``excluded`` matches packets that may not use them.

    Without ``hands_over`` and ``past_firewall`` only the host's own programs reach a port.
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
    if limits.past_firewall:
        return f"""{text}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {f.name} daddr {f.loopback} accept
    fib daddr type local jump translate
  }}"""
    if not limits.hands_over:
        return text
    fragment = family.may_fragment if limits.fragments else ""
    closed = "".join(f"\n    {condition} accept" for condition in excluded)
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
    oifname "lo" ct state untracked fib saddr type != local{fragment} ct zone set 0
  }}"""


def _own_loopback(family: Family) -> str:
    """Exclude ::1: the kernel drops answers to ::1 that come from another interface."""
    return "\n    ip6 daddr ::1 accept" if family is IP6 else ""


def port_elements(
    table: str, endpoint: Endpoint, ports: Iterable[PublishedPort], *, verb: str
) -> str:
    """Return commands that 'add' or 'delete' the elements of published ports."""
    elements: dict[tuple[str, str], list[str]] = {}
    for port in ports:
        for name, element in _elements(endpoint, port):
            elements.setdefault((address_family(port).name, name), []).append(element)
    return "".join(
        f"{verb} element {family} {table} {name} {{ {', '.join(rows)} }}\n"
        for (family, name), rows in elements.items()
    )


def _elements(endpoint: Endpoint, port: PublishedPort) -> tuple[tuple[str, str], ...]:
    """Return pairs of set or map and element for one port."""
    family = address_family(port)
    key, suffix = f"{port.protocol} . {port.host_port}", "_everywhere"
    if port.host_ip != family.any:
        key, suffix = f"{port.host_ip} . {key}", ""
    container_address = endpoint.ipv6 if family is IP6 else endpoint.ipv4
    if not container_address:  # a proxy forwards to it
        return ()
    target = f"{container_address} . {port.container_port}"
    return (f"published{suffix}", f"{key} : {target}"), (f"open{suffix}", key)


def set_elements(rows: list[str]) -> str:
    """Return the element list of a set or map declaration."""
    return f"\n    elements = {{ {', '.join(rows)} }}" if rows else ""
