"""Published ports as text for nft(8): how packets to them pass the host's own firewall. Pure.

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

from collections.abc import Iterable
from typing import NamedTuple

from jaula.spec.endpoint import ANY, ANY6, Endpoint, PublishedPort

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
