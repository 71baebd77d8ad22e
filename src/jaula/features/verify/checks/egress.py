"""Egress list: the rules of the container are loaded, and its addresses lead to them.

Evidence: ``nft -j list ruleset``. The base chains and the container's chains are compared with the
rules of :mod:`jaula.network.firewall.egress_rules`, loaded by the same kernel. Then the map
elements with the container's addresses and its interface are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jaula.features.verify.checks.firewall import addresses_of, bridge_of, differences
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.host_snapshot import Rules, listing_of, rules
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.network.firewall import egress_rules, endpoint_tables
from jaula.network.network_driver import PORT_PREFIX
from jaula.spec.endpoint_record import Endpoint

INFO = CheckInfo(
    id="egress",
    layer="network",
    title="Egress list",
    reason="A compromised program reaches only the destinations of the list, so it cannot send "
    "data elsewhere or scan the network.",
    references=("nft(8)",),
    evidence="nft -j list ruleset",
    advice="restart the engine, and find the program that edits the engine's tables",
)


class Lists(NamedTuple):
    """The rules of one kind of list. ``member`` is that of ``HostConfig``."""

    member: str
    noun: str  # of one item
    suffix: str  # of the tables' names
    chains: frozenset[str]  # the base chains
    tables: Callable[[str], str]
    chain: Callable[[str, Endpoint], str]


_EGRESS = Lists(
    "Egress", "destination", "_egress", frozenset({"prerouting", "forward"}),
    egress_rules.tables, egress_rules.chain,
)  # fmt: skip


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row; none for a container without a list."""
    return check_lists(container, INFO, _EGRESS)


def check_lists(container: AuditedContainer, info: CheckInfo, lists: Lists) -> Iterator[Result]:
    """Yield one row on the rules of a list; none for a container without one."""
    host_config = container.inspect.get("HostConfig") or {}
    items = host_config.get(lists.member)
    if items is None:
        return
    settings = container.inspect.get("NetworkSettings") or {}
    wrong: list[str] = []
    for name, document in (settings.get("Networks") or {}).items():
        if addresses_of(document):
            wrong += (
                f"{name}: {text}" for text in _problems(container, document, tuple(items), lists)
            )
    count = quantity(len(items), lists.noun)
    yield Result(info.id, "network", count, "; ".join(wrong) or count, "nft list ruleset",
                 verdict_of(not wrong, None))  # fmt: skip


def _problems(
    container: AuditedContainer,
    document: Mapping[str, Any],
    items: tuple[str, ...],
    lists: Lists,
) -> Iterator[str]:
    endpoint = _endpoint(document, items)
    loaded = container.snapshot.derived("rules", rules)
    chain = f"c_{endpoint_tables.short_id(endpoint)}"
    table = next(
        (
            table
            for (family, table), body in loaded.items()
            if family == "inet"
            and table.endswith(lists.suffix)
            and any(item.get("name") == chain for kind, item in body if kind == "chain")
        ),
        None,
    )
    if table is None:
        yield "no rules are loaded"
        return
    bridge = bridge_of(table.removesuffix(lists.suffix))
    expected = rules(listing_of(lists.tables(bridge) + lists.chain(bridge, endpoint)))
    chains = lists.chains | {chain}
    yield from differences(
        _only(expected, chains, lists.suffix), _only(loaded, chains, lists.suffix)
    )
    present = _map_elements(container.snapshot.packet_filter, table)
    for family, where, row in endpoint_tables.elements(endpoint):
        key = row.partition(" :")[0].strip('"')
        if (family, where, key) not in present:
            yield f"{key} is missing in {family} {where}"
        elif present[family, where, key] not in (chain, ""):
            yield f"{key} leads to another chain in {family} {where}"


def _endpoint(document: Mapping[str, Any], items: tuple[str, ...]) -> Endpoint:
    """Return the endpoint of a document of inspect, with the fields that the rules use."""
    identity = str(document.get("EndpointID") or "")
    return Endpoint(
        network="",
        endpoint_id=identity,
        container_id="",
        container_name="",
        ipv4=str(document.get("IPAddress") or ""),
        prefix=0,
        gateway="",
        mac=str(document.get("MacAddress") or ""),
        host_interface=f"{PORT_PREFIX}{identity[:10]}",
        ipv6=str(document.get("GlobalIPv6Address") or ""),
        egress=items,
        listen=items,
    )


def _only(tables: Rules, chains: frozenset[str], suffix: str) -> Rules:
    """Return the named chains and their rules, of the tables with a suffix."""
    return {
        key: [
            [kind, item]
            for kind, item in body
            if (item["name"] if kind == "chain" else item["chain"]) in chains
        ]
        for key, body in tables.items()
        if key[1].endswith(suffix)
    }


def _map_elements(objects: list[dict[str, Any]], table: str) -> dict[tuple[str, str, str], str]:
    """Return the chain of each element of the maps of a table, '' for elements of its sets."""
    found = {}
    for entry in objects:
        for kind in ("map", "set"):
            body = entry.get(kind, {})
            if body.get("table") != table:
                continue
            for element in body.get("elem", ()):
                place = (body["family"], body["name"])
                if kind == "set" and isinstance(element, str):
                    found[*place, element] = ""
                elif kind == "map":
                    target = element[1].get("jump", {}).get("target", "?")
                    found[*place, str(element[0])] = target
    return found
