"""Links of the container from both sides: veth pair, bridge, addresses, routes, translations.

Evidence: netlink dumps of the container's network namespace and of the reader's, sysctls of both,
and the packet filter. The host's end of a link carries the id of the endpoint in its name. A rule
of another program that translates to the container publishes it without a request; rules of
iptables-legacy, and those that nft cannot print, are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, NamedTuple

from jaula.features.verify.checks.firewall import (
    addresses_of,
    bridge_of,
    endpoint_table,
    named_bridge,
    port_of,
)
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.network_view import SETTINGS
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.kernel.rtnetlink import Link, Route
from jaula.network.firewall.bridge_rules import table_name
from jaula.security.allowed_sysctls import normalize
from jaula.spec.network_record import PARENT_DRIVERS

LOCAL_TABLE = 255  # the kernel's own routes of addresses (RT_TABLE_LOCAL)
TRANSLATIONS = ("dnat", "fwd", "dup", "tproxy")

INFO = CheckInfo(
    id="links",
    layer="network",
    title="Links and routes",
    reason="A link that is moved to another bridge, an added route, or a translation by another "
    "program reaches networks that were not requested, or makes the container reachable.",
    references=("I18", "CVE-2020-8558", "CVE-2020-13401", "veth(4)", "rtnetlink(7)"),
    evidence="rtnetlink of both network namespaces, /proc/sys/net, nft -j list ruleset",
    advice="restart it: its links are created again; find the program that changed them",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield rows for links, routes, settings and translations; none for a shared network."""
    if not container.on_engine_network:
        return
    networks = (container.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    endpoints = {name: e for name, e in networks.items() if addresses_of(e)}
    by = _flag(container)
    ports = 0
    wrong: list[str] = []
    for name, endpoint in endpoints.items():
        document = container.snapshot.network(name, str(endpoint.get("NetworkID")))
        if document.get("Driver") not in PARENT_DRIVERS:
            ports += 1
            wrong += _pair(container, endpoint, document)
    yield Result(
        "links", "network", quantity(ports, "veth pair"),
        "; ".join(wrong) or "both ends as requested", "rtnetlink of both namespaces",
        verdict_of(not wrong, None),
    )  # fmt: skip
    extra = [
        route_text(route) for route in container.network.routes if not _expected(route, endpoints)
    ]
    yield changeable("routes", f"those of {quantity(len(endpoints), 'network')}", ", ".join(extra),
                      quantity(len(container.network.routes), "route"), by)  # fmt: skip
    yield settings(container, by)
    yield _translations(container, endpoints)


def _flag(container: AuditedContainer) -> str | None:
    """Return the capability that lets the program change its own network."""
    return "CAP_NET_ADMIN" if "CAP_NET_ADMIN" in container.capabilities.bounding else None


def changeable(name: str, requested: str, wrong: str, fine: str, by: str | None) -> Result:
    """Return a row on what a program with CAP_NET_ADMIN may change itself."""
    by = by if wrong else None
    return Result(
        name, "network", requested + (f" ({by})" if by else ""), wrong or fine,
        "rtnetlink and /proc/sys/net of its namespace", verdict_of(not wrong or by is not None, by),
    )  # fmt: skip


def _pair(
    container: AuditedContainer, endpoint: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with the veth pair of an endpoint."""
    mac = str(endpoint.get("MacAddress") or "").lower()
    name = port_of(endpoint)
    links = {link.name: link for link in container.snapshot.links}
    port = links.get(name)
    inner = next((link for link in container.network.links if link.mac == mac), None)
    if port is None or inner is None:
        yield f"{name} does not exist" if port is None else f"no interface has {mac}"
        return
    if port.kind != "veth" or inner.kind != "veth" or not _is_pair(port, inner):
        yield f"{name} is not the other end of {inner.name}"
    if not port.up:
        yield f"{name} is down"
    table = endpoint_table(container.snapshot.packet_filter, addresses_of(endpoint)[0], mac, name)
    bridge = named_bridge(document) or (bridge_of(table) if table else "")
    if bridge and (links.get(bridge) is None or port.master != links[bridge].index):
        master = next((link.name for link in links.values() if link.index == port.master), "none")
        yield f"{name} is on the bridge {master}, not {bridge}"


def _is_pair(port: Link, inner: Link) -> bool:
    return port.parent == inner.index and inner.parent == port.index


def _expected(route: Route, endpoints: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether a route is the kernel's own, or one of a network of the container. Pure."""
    if route.table == LOCAL_TABLE:
        return True
    gateways = {str(e.get(k)) for e in endpoints.values() for k in ("Gateway", "IPv6Gateway")}
    if not route.destination:
        return not route.gateway or route.gateway in gateways
    destination = ip_network(f"{route.destination}/{route.prefix}")
    if destination.is_link_local or destination.is_loopback or destination.is_multicast:
        return not route.gateway
    subnets = [
        ip_interface(f"{e[address]}/{e.get(length) or 0}").network
        for e in endpoints.values()
        for address, length in (
            ("IPAddress", "IPPrefixLen"),
            ("GlobalIPv6Address", "GlobalIPv6PrefixLen"),
        )
        if e.get(address)
    ]
    return not route.gateway and destination in subnets


def route_text(route: Route) -> str:
    """Return a route in words."""
    target = f"{route.destination}/{route.prefix}" if route.destination else "default"
    return f"{target} via {route.gateway or f'interface {route.index}'} (table {route.table})"


def settings(container: AuditedContainer, by: str | None) -> Result:
    """Return the row on settings that let in packets; ``by`` is what may change them."""
    requested = {normalize(name) for name in container.host_config.get("Sysctls") or {}}
    wrong = [
        f"{name} = {value}"
        for name, value in container.network.settings.items()
        if value not in ("0", "?") and name not in requested
    ]
    count = len(container.network.settings)
    return changeable("network settings", f"{', '.join(SETTINGS)} off", ", ".join(wrong),
                       f"{count} off", by)  # fmt: skip


def _translations(
    container: AuditedContainer, endpoints: Mapping[str, Mapping[str, Any]]
) -> Result:
    """Search the tables of other programs for translations to an address of the container."""
    objects = container.snapshot.packet_filter
    addresses = [address for e in endpoints.values() for address in addresses_of(e)]
    own = set()
    for name, endpoint in endpoints.items():
        mac = str(endpoint.get("MacAddress") or "")
        own.add(endpoint_table(objects, addresses_of(endpoint)[0], mac, port_of(endpoint)))
        # The table of endpoints is one for all bridges; ports are published by that of the bridge.
        document = container.snapshot.network(name, str(endpoint.get("NetworkID")))
        if bridge := named_bridge(document):
            own.add(table_name(bridge))
    found = [
        translation.place
        for translation in container.snapshot.derived("translations", translations)
        if translation.table not in own and any(translation.targets(a) for a in addresses)
    ]
    return Result(
        "foreign translations", "network", "none", "; ".join(dict.fromkeys(found)) or "none",
        "nft list ruleset", verdict_of(not found, None),
    )  # fmt: skip


class Translation(NamedTuple):
    """A rule that sends packets to addresses: single ones, and prefixes or ranges."""

    table: str
    place: str
    single: frozenset[str]
    wide: tuple[Any, ...]

    def targets(self, address: str) -> bool:
        """Return whether the rule sends packets to an address."""
        return address in self.single or any(_includes(value, address) for value in self.wide)


def translations(objects: list[dict[str, Any]]) -> list[Translation]:
    """Return the rules that translate, with the elements of the maps that they use. Pure."""
    maps: dict[tuple[str, str, str], Any] = {}
    for entry in objects:
        for kind in ("map", "set"):
            if body := entry.get(kind):
                maps[body["family"], body["table"], body["name"]] = body.get("elem", ())
    found = []
    for rule in (entry["rule"] for entry in objects if "rule" in entry):
        statements = [s for s in rule.get("expr", ()) if any(name in s for name in TRANSLATIONS)]
        if not statements:
            continue
        family, table = rule["family"], rule["table"]
        names = [text[1:] for text in _texts(statements) if text.startswith("@")]
        values = list(_values([*statements, *(maps.get((family, table, n), ()) for n in names)]))
        single = frozenset(value for value in values if isinstance(value, str))
        wide = tuple(value for value in values if not isinstance(value, str))
        found.append(Translation(table, f"{family} {table} {rule['chain']}", single, wide))
    return found


def _values(node: Any) -> Iterator[Any]:
    """Yield every text, prefix and range below a node of nft's JSON."""
    if isinstance(node, Mapping):
        if "prefix" in node or "range" in node:
            yield node
        else:
            for value in node.values():
                yield from _values(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _values(value)
    elif isinstance(node, str):
        yield node


def _texts(node: Any) -> Iterator[str]:
    return (value for value in _values(node) if isinstance(value, str))


def _includes(value: Any, address: str) -> bool:
    requested = ip_address(address)
    try:
        if "prefix" in value:
            prefix = value["prefix"]
            return requested in ip_network(f"{prefix['addr']}/{prefix['len']}", strict=False)
        first, last = (ip_address(end) for end in value["range"])
        return bool(first.version == requested.version and first <= requested <= last)  # type: ignore[operator]
    except (ValueError, KeyError, TypeError):
        return False  # a name, a port or another value
