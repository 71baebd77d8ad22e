"""Egress lists: the destinations that a container on a bridge may connect to.

Two tables of the engine's own hold the rules of all containers with a list
(:mod:`jaula.network.firewall.endpoint_tables`).

* The table of the family inet sees what the host routes or receives: to the outside, to the host,
  to other bridges. It runs after connection tracking and before any translation, so the list names
  the destinations that the container itself uses. Replies and related errors pass.
* The table of the family bridge sees what stays on one bridge, in its hook ``forward``.

Source addresses identify a container: :mod:`jaula.network.firewall.antispoof` drops others.

Facts about the family bridge: the set for UDP has the flows that another container began. A reject
is not available in ``forward``; with the sysctl bridge-nf-call-iptables the inet table judges
bridged packets first and rejects them.

The addresses of names come from the engine's DNS server, which adds them before it answers. They
are elements with a timeout in one set for each protocol and range of ports.

Refused destinations are elements of a set with a counter, which :func:`parse_refused` reads.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

from jaula.errors import JaulaError
from jaula.network.dns import internal_addresses
from jaula.network.firewall import endpoint_tables
from jaula.network.firewall.bridge_rules import set_elements, table_name
from jaula.network.firewall.endpoint_tables import FAMILIES, EndpointTables, short_id
from jaula.network.firewall.nft_command import FirewallError
from jaula.spec import egress
from jaula.spec.egress import Destination
from jaula.spec.endpoint_record import Endpoint

NAMES = 4096  # addresses of names in one set
REFUSED = 256  # destinations that are remembered for one container
_TABLES = ("inet", "bridge")  # families of the tables
REFUSED_FOR = 24 * 3600  # seconds

Addresses = dict[str, dict[str, int]]
"""The addresses of names with their remaining seconds, by set."""


class Refused(NamedTuple):
    """A destination that a container was refused."""

    destination: str  # as an item of the list; ``icmp:ADDRESS`` for other protocols
    packets: int


class EgressFirewall(EndpointTables):
    """The tables of one engine's egress lists."""

    subject = "egress list"
    _known: Addresses = {}  # addresses of names that the next table keeps

    @property
    def table(self) -> str:
        """The name of the tables."""
        return _table(self._bridge)

    def is_restricted(self, endpoint: Endpoint) -> bool:
        """Return whether an endpoint has a list."""
        return endpoint.egress is not None

    def _tables(self) -> str:
        return tables(self._bridge)

    def _chain(self, endpoint: Endpoint) -> str:
        return chain(self._bridge, endpoint, self._known)

    def _delete_chain(self, endpoint: Endpoint) -> str:
        return delete_chain(self._bridge, endpoint)

    def load(self, endpoints: Iterable[Endpoint] | None = None) -> None:
        """Replace the tables with the rules of the endpoints; addresses of names stay.

        :raises FirewallError: when the kernel refuses.
        """
        self._known = parse_addresses(self._sets())
        try:
            super().load(endpoints)
        finally:
            self._known = {}

    def admit(self, endpoint: Endpoint, name: str, addresses: dict[str, int]) -> None:
        """Allow the addresses of a name, with the seconds of each, if the list has the name."""
        if endpoint.endpoint_id not in self._loaded:
            return
        commands = name_elements(self._bridge, endpoint, name, addresses)
        if commands:
            self._nft().run(commands)

    def names(self, endpoint: Endpoint) -> Addresses:
        """Return the addresses of names that an endpoint may use, for :meth:`restore_names`."""
        if endpoint.endpoint_id not in self._loaded:
            return {}
        return without_id(parse_addresses(self._sets()), endpoint)

    def restore_names(self, endpoint: Endpoint, addresses: Addresses) -> None:
        """Allow addresses of names that an endpoint with the same list had."""
        if endpoint.endpoint_id not in self._loaded:
            return
        commands = restored_elements(self._bridge, endpoint, addresses)
        if commands:
            self._nft().run(commands)

    def refused(self, endpoint: Endpoint) -> list[Refused]:
        """Return the destinations that an endpoint was refused, most packets first."""
        if endpoint.endpoint_id not in self._loaded:
            return []
        return parse_refused(self._sets(), endpoint)

    def refused_packets(self, endpoints: Iterable[Endpoint]) -> list[int]:
        """Return for each endpoint the packets to destinations that it was refused."""
        sets = self._sets()
        return [sum(row.packets for row in parse_refused(sets, each)) for each in endpoints]

    def _sets(self) -> list[dict[str, Any]]:
        """Return the sets of both tables with their elements; none if a table is absent."""
        found = []
        for family in ("inet", "bridge"):
            try:
                text = self._nft().run(f"list table {family} {_table(self._bridge)}", json=True)
            except FirewallError:
                continue
            found += [row["set"] for row in json.loads(text)["nftables"] if "set" in row]
        return found


# -- rules ----------------------------------------------------------------------------------------


def _table(bridge: str) -> str:
    return f"{table_name(bridge)}_egress"


def tables(bridge: str) -> str:
    """Return commands that create the tables without containers. Pure."""
    inet = """
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    iif "lo" accept
    ip saddr vmap @chains4
    ip6 saddr vmap @chains6
  }"""
    return endpoint_tables.create(_table(bridge), inet, keyed_by="iifname")


def chain(bridge: str, endpoint: Endpoint, addresses: Addresses | None = None) -> str:
    """Return commands that add the chains, sets and map elements of an endpoint. Pure.

    ``addresses`` are those of names, by set, that a former table had.
    """
    name, own = _table(bridge), short_id(endpoint)
    destinations = egress.parse(endpoint.egress or ())
    text = []
    for family in ("inet", "bridge"):
        text.append(f"table {family} {name} {{{_sets(destinations, own, addresses or {})}")
        text.append(f"  chain c_{own} {{")
        rules = _inet_rules if family == "inet" else _bridge_rules
        text += [f"    {rule}" for rule in rules(destinations, endpoint)]
        text.append("  }\n}")
    text += endpoint_tables.add_elements(name, endpoint)
    return "\n".join(text) + "\n"


def delete_chain(bridge: str, endpoint: Endpoint) -> str:
    """Return commands that remove what :func:`chain` added. Pure."""
    name, own = _table(bridge), short_id(endpoint)
    text = endpoint_tables.delete_elements(name, endpoint)
    destinations = egress.parse(endpoint.egress or ())
    for table in (f"inet {name}", f"bridge {name}"):
        text.append(f"flush chain {table} c_{own}")
        text.append(f"delete chain {table} c_{own}")
        text += [f"delete set {table} {row}" for row in _set_names(destinations, own)]
    return "\n".join(text) + "\n"


def _groups(destinations: Sequence[Destination]) -> dict[tuple[str, int, int], str]:
    """Return a number for each protocol and range of ports of the names."""
    named = (d for d in destinations if d.name and d.protocol != egress.DNS)
    keys = sorted({(d.protocol, d.first, d.last) for d in named})
    return {key: str(number) for number, key in enumerate(keys)}


def _set_names(destinations: Sequence[Destination], own: str) -> Iterator[str]:
    for family in FAMILIES:
        for number in _groups(destinations).values():
            yield f"n{family.version}_{own}_{number}"
        yield f"r{family.version}_{own}"


def _sets(destinations: Sequence[Destination], own: str, addresses: Addresses) -> str:
    text = []
    for family in FAMILIES:
        for number in _groups(destinations).values():
            name = f"n{family.version}_{own}_{number}"
            rows = [
                f"{address} timeout {time}s" for address, time in addresses.get(name, {}).items()
            ]
            text.append(
                f"\n  set {name} {{\n    type {family.key}\n    size {NAMES}\n    flags timeout"
                f"{set_elements(rows)}\n  }}"
            )
        text.append(
            f"\n  set r{family.version}_{own} {{\n    type {family.key} . inet_proto ."
            f" inet_service\n    size {REFUSED}\n    flags dynamic, timeout\n    counter\n  }}"
        )
    return "".join(text) + "\n"


def _allowed(destinations: Sequence[Destination], own: str) -> Iterator[str]:
    """Yield the rules that accept the destinations of a list."""
    for destination in destinations:
        if destination.network is not None:
            where = "ip" if destination.network.version == 4 else "ip6"
            yield f"{where} daddr {destination.network} {_ports(destination)} accept"
    for (protocol, first, last), number in _groups(destinations).items():
        ports = _ports(Destination(protocol, None, "", first, last))
        for family in FAMILIES:
            name = f"n{family.version}_{own}_{number}"
            yield f"{family.name} daddr @{name} {ports} accept"


def _ports(destination: Destination) -> str:
    if (destination.first, destination.last) == (0, 65535):
        return f"meta l4proto {destination.protocol}"
    if destination.first == destination.last:
        return f"{destination.protocol} dport {destination.first}"
    return f"{destination.protocol} dport {destination.first}-{destination.last}"


def _remember(own: str) -> Iterator[str]:
    """Yield the rules that note a refused destination; the port of other protocols is 0."""
    for family in FAMILIES:
        place, time = f"@r{family.version}_{own}", f"timeout {REFUSED_FOR}s"
        yield (
            f"meta l4proto {{ tcp, udp }} update {place}"
            f" {{ {family.name} daddr . meta l4proto . th dport {time} }}"
        )


def _neighbours(endpoint: Endpoint) -> Iterator[str]:
    """Yield the rules that accept neighbour discovery and multicast reports on the link.

    These messages carry options of any content, so none may leave the link: RFC 4861 and RFC 3810
    define their hop limits, and each is addressed to the link, to a multicast group of it, or to an
    address of its subnet.
    """
    places = "fe80::/10, ff02::/16"
    if endpoint.ipv6:
        places += f", {ip_network(f'{endpoint.ipv6}/{endpoint.prefix6}', strict=False)}"
    yield (
        f"ip6 daddr {{ {places} }} ip6 hoplimit 255"
        " icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept"
    )
    yield (
        "ip6 daddr ff02::/16 ip6 hoplimit 1"
        " icmpv6 type { mld-listener-report, mld2-listener-report } accept"
    )


def _inet_rules(destinations: Sequence[Destination], endpoint: Endpoint) -> Iterator[str]:
    own = short_id(endpoint)
    yield "ct state established,related accept"
    yield from _neighbours(endpoint)
    yield from _allowed(destinations, own)
    yield from _remember(own)
    yield "meta l4proto tcp reject with tcp reset"
    yield "reject with icmpx type admin-prohibited"


def _bridge_rules(destinations: Sequence[Destination], endpoint: Endpoint) -> Iterator[str]:
    own = short_id(endpoint)
    yield "ether type arp accept"
    yield from _neighbours(endpoint)
    yield from endpoint_tables.replies()
    yield "icmp type { echo-reply, destination-unreachable, time-exceeded } accept"
    yield (
        "icmpv6 type { echo-reply, destination-unreachable, packet-too-big, time-exceeded,"
        " parameter-problem } accept"
    )
    yield from _allowed(destinations, own)
    yield from _remember(own)
    yield "drop"


# -- names and refused destinations ---------------------------------------------------------------


def name_elements(bridge: str, endpoint: Endpoint, name: str, addresses: dict[str, int]) -> str:
    """Return commands that allow the addresses of a name, '' if the list lacks the name. Pure.

    An element is added, deleted and added in one transaction, because the kernel renews no timeout
    of an element that exists.
    """
    destinations = egress.parse(endpoint.egress or ())
    groups = _groups(destinations)
    numbers = {
        groups[d.protocol, d.first, d.last]
        for d in destinations
        if d.name == name and d.protocol != egress.DNS
    }
    text = []
    for number in sorted(numbers):
        for address, seconds in addresses.items():
            version = 6 if ":" in address else 4
            place = f"{_table(bridge)} n{version}_{short_id(endpoint)}_{number}"
            for family in ("inet", "bridge"):
                row = f"{{ {address} timeout {seconds}s }}"
                text.append(f"add element {family} {place} {row}")
                text.append(f"delete element {family} {place} {{ {address} }}")
                text.append(f"add element {family} {place} {row}")
    return "\n".join(text) + "\n" if text else ""


def parse_addresses(sets: Iterable[dict[str, Any]]) -> Addresses:
    """Return the addresses of names in ``nft -j list table`` output, with their seconds left."""
    found: Addresses = {}
    for row in sets:
        if not row["name"].startswith("n"):
            continue
        for element in row.get("elem", ()):
            inner = element.get("elem", {}) if isinstance(element, dict) else {}
            if isinstance(inner.get("val"), str) and inner.get("expires", 0) > 0:
                found.setdefault(row["name"], {})[inner["val"]] = int(inner["expires"])
    return found


def without_id(addresses: Addresses, endpoint: Endpoint) -> Addresses:
    """Return the addresses of an endpoint by set, without its id in the names of the sets. Pure."""
    own = short_id(endpoint)
    return {
        name.replace(f"_{own}_", "_"): rows
        for name, rows in addresses.items()
        if f"_{own}_" in name
    }


def restored_elements(bridge: str, endpoint: Endpoint, addresses: Addresses) -> str:
    """Return commands that add the result of :func:`without_id` to an endpoint's sets. Pure.

    Sets that its list does not have, and what is not an address, are left out. So are addresses
    that no name opens, except those of the endpoint's own network: names of containers open these.
    """
    own, text = short_id(endpoint), []
    for family in FAMILIES:
        for number in _groups(egress.parse(endpoint.egress or ())).values():
            rows = addresses.get(f"n{family.version}_{number}", {})
            elements = ", ".join(
                f"{address} timeout {int(seconds)}s"
                for address, seconds in list(rows.items())[:NAMES]
                if seconds > 0 and _may_restore(endpoint, address, family.version)
            )
            name = f"{_table(bridge)} n{family.version}_{own}_{number}"
            if elements:
                text += [f"add element {each} {name} {{ {elements} }}" for each in _TABLES]
    return "".join(f"{line}\n" for line in text)


def _may_restore(endpoint: Endpoint, text: str, version: int) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version != version:
        return False
    own, prefix = (
        (endpoint.ipv6, endpoint.prefix6) if version == 6 else (endpoint.ipv4, endpoint.prefix)
    )
    if own and address in ip_network(f"{own}/{prefix}", strict=False):
        return True
    return not internal_addresses.is_internal(text, ())


def parse_refused(sets: Iterable[dict[str, Any]], endpoint: Endpoint) -> list[Refused]:
    """Return the refused destinations of an endpoint, most packets first.

    :raises JaulaError: when the output has another form.
    """
    counts: dict[str, int] = {}
    names = {f"r{family.version}_{short_id(endpoint)}" for family in FAMILIES}
    for row in sets:
        if row["name"] not in names:
            continue
        for element in row.get("elem", ()):
            try:
                address, protocol, port = element["elem"]["val"]["concat"]
                packets = int(element["elem"]["counter"]["packets"])
            except (KeyError, TypeError, ValueError) as error:
                raise JaulaError(
                    f"nft printed an unknown form of a set's element: {error}"
                ) from None
            host = f"[{address}]" if ":" in str(address) else address
            text = f"{protocol}:{host}:{port}"
            counts[text] = counts.get(text, 0) + packets
    return [Refused(*item) for item in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
