"""Listen lists: the ports at which a container on a bridge may be reached.

Two tables of the engine's own hold the rules of all containers with a list
(:mod:`jaula.network.firewall.endpoint_tables`). New flows to other ports are refused; replies to
what the container began pass. Protocols without ports pass, those with other ports (SCTP, DCCP,
UDP-Lite) are refused.

* The table of the family inet sees what the host sends or routes to the container, after the
  translation of published ports. So a published port needs the container's port in the list.
* The table of the family bridge sees what stays on one bridge. The set for UDP has the flows that
  the container began. A refused packet is dropped there.

Landlock refuses bind(2) of other TCP ports, but not listen(2) without bind(2), which selects a
port. So the rules are for TCP too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaula.network.firewall import endpoint_tables
from jaula.network.firewall.bridge_rules import table_name
from jaula.network.firewall.endpoint_tables import EndpointTables, short_id
from jaula.spec import listen
from jaula.spec.endpoint_record import Endpoint
from jaula.spec.listen import Port

SUFFIX = "_listen"  # of the names of the tables
_JUDGED = "{ tcp, udp, dccp, sctp, udplite }"


class ListenFirewall(EndpointTables):
    """The tables of one engine's listen lists."""

    subject = "listen list"

    @property
    def table(self) -> str:
        """The name of the tables."""
        return _table(self._bridge)

    def is_restricted(self, endpoint: Endpoint) -> bool:
        """Return whether an endpoint has a list."""
        return endpoint.listen is not None

    def _tables(self) -> str:
        return tables(self._bridge)

    def _chain(self, endpoint: Endpoint) -> str:
        return chain(self._bridge, endpoint)

    def _delete_chain(self, endpoint: Endpoint) -> str:
        return delete_chain(self._bridge, endpoint)


def _table(bridge: str) -> str:
    return f"{table_name(bridge)}{SUFFIX}"


def tables(bridge: str) -> str:
    """Return commands that create the tables without containers. Pure."""
    inet = "".join(
        f"\n  chain {hook} {{\n    type filter hook {hook} priority filter; policy accept;"
        "\n    ip daddr vmap @chains4\n    ip6 daddr vmap @chains6\n  }"
        for hook in ("forward", "output")
    )
    return endpoint_tables.create(_table(bridge), inet, keyed_by="oifname")


def chain(bridge: str, endpoint: Endpoint) -> str:
    """Return commands that add the chains and map elements of an endpoint. Pure."""
    name, own = _table(bridge), short_id(endpoint)
    ports = listen.parse(endpoint.listen or ())
    text = []
    for family, rules in (("inet", _inet_rules(ports)), ("bridge", _bridge_rules(ports))):
        text.append(f"table {family} {name} {{\n  chain c_{own} {{")
        text += [f"    {rule}" for rule in rules]
        text.append("  }\n}")
    text += endpoint_tables.add_elements(name, endpoint)
    return "\n".join(text) + "\n"


def delete_chain(bridge: str, endpoint: Endpoint) -> str:
    """Return commands that remove what :func:`chain` added. Pure."""
    name, own = _table(bridge), short_id(endpoint)
    text = endpoint_tables.delete_elements(name, endpoint)
    for family in ("inet", "bridge"):
        text.append(f"flush chain {family} {name} c_{own}")
        text.append(f"delete chain {family} {name} c_{own}")
    return "\n".join(text) + "\n"


def _allowed(ports: Sequence[Port]) -> Iterator[str]:
    """Yield the rules that accept the ports of a list, one for each protocol."""
    for protocol in ("tcp", "udp"):
        ranges = [port.range for port in ports if port.protocol == protocol]
        single = [first for first, last in ranges if first == last]
        for first, last in ranges:
            if first != last:
                yield f"{protocol} dport {first}-{last} accept"
                single = [number for number in single if not first <= number <= last]
        if single:
            yield f"{protocol} dport {{ {', '.join(map(str, single))} }} accept"


def _inet_rules(ports: Sequence[Port]) -> Iterator[str]:
    yield "ct state established,related,invalid accept"  # an invalid packet opens no flow
    yield from _allowed(ports)
    yield "meta l4proto tcp reject with tcp reset"
    yield f"meta l4proto {_JUDGED} reject with icmpx type port-unreachable"


def _bridge_rules(ports: Sequence[Port]) -> Iterator[str]:
    yield from endpoint_tables.replies()
    yield from _allowed(ports)
    yield f"meta l4proto {_JUDGED} drop"
