"""Firewall of the container's bridge: every rule is loaded, and includes the container's address.

Evidence: ``nft -j list ruleset``. The rules of the engine's two tables are compared one by one with
the rules of :mod:`jaula.network.firewall.bridge_rules`, loaded by the same kernel. Then elements
are checked: those that let the container's port send, those with its address, and those that send
the ports of the host that it has published to another address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.host_snapshot import Rules, rules
from jaula.features.verify.model.port_maps import Forward, concat, forwards
from jaula.features.verify.model.result import Result, Verdict, quantity, verdict_of
from jaula.network.firewall.bridge_rules import Limits, table_name
from jaula.network.ipam import link_local_address
from jaula.network.network_driver import PORT_PREFIX
from jaula.spec.network_record import BYPASS_FIREWALL_OPTION, NAME_OPTION, PARENT_DRIVERS

INFO = CheckInfo(
    id="firewall",
    layer="network",
    title="Firewall",
    reason="Without these rules a container can spoof another's address, reach services on the "
    "host's loopback, or be reached from outside at ports that were not published.",
    references=("I18", "CIS 5.9", "CIS 5.14", "CVE-2020-8558", "CVE-2020-13401", "CVE-2025-54388"),
    evidence="nft -j list ruleset",
    advice="the engine restores deleted tables; restart it if single rules are missing, and find "
    "the program that edits the engine's tables",
)

ADDRESSES = ("IPAddress", "GlobalIPv6Address")
EVIDENCE = "nft list ruleset"
SENDERS = ("endpoints", "endpoints6")
PORT_ID_LENGTH = 10  # characters of the endpoint's id in the name of the host's end


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield rows for the rules and the container's elements; none without a bridge network."""
    settings = container.inspect.get("NetworkSettings") or {}
    mode = container.text("NetworkMode") or "bridge"
    if mode in ("host", "none") or mode.startswith("container:"):
        return
    networks = settings.get("Networks") or {}
    members = {name: e for name, e in networks.items() if addresses_of(e)}
    for name, endpoint in members.items():
        label = "" if len(members) == 1 else f" {name}"
        document = container.snapshot.network(name, str(endpoint.get("NetworkID")))
        if document.get("Driver") in PARENT_DRIVERS:
            continue  # no bridge of the host is involved
        yield from _bridge(container, endpoint, document, label)
    if members:
        addresses = [address for e in members.values() for address in addresses_of(e)]
        yield _ports(container, addresses, settings)


def _bridge(
    container: AuditedContainer,
    endpoint: Mapping[str, Any],
    document: Mapping[str, Any],
    label: str,
) -> Iterator[Result]:
    objects, mac = container.snapshot.packet_filter, str(endpoint.get("MacAddress") or "")
    guard = ""
    for address in addresses_of(endpoint):
        table = endpoint_table(objects, address, mac, port_of(endpoint))
        if table is None:
            yield Result(f"firewall{label}", "network", f"{address} bound to its port",
                      "no set of the engine has it", EVIDENCE, Verdict.FAILS)  # fmt: skip
            return
        guard = bridge_of(table)
    foreign = foreign_senders(objects, endpoint)
    own = f"{mac} with {', '.join(addresses_of(endpoint))}"
    yield Result(f"senders{label}", "network", own, "; ".join(foreign) or "no other", EVIDENCE,
                 verdict_of(not foreign, None))  # fmt: skip
    bridge = named_bridge(document) or guard
    subnet = None
    if ipv4 := endpoint.get("IPAddress"):
        subnet = IPv4Network(f"{ipv4}/{endpoint.get('IPPrefixLen') or 16}", strict=False)
    expected = container.snapshot.expected(
        bridge, subnet, subnet6(document), limits(document), guard
    )
    actual = container.snapshot.derived("rules", rules)
    wrong = differences(expected, actual)
    count = sum(len(body) for body in expected.values())
    yield Result(f"firewall{label}", "network", f"{count} chains and rules of {bridge}",
              "; ".join(wrong) or "all in effect", EVIDENCE,
              verdict_of(not wrong, None))  # fmt: skip


def addresses_of(endpoint: Mapping[str, Any]) -> list[str]:
    """Return the addresses of an endpoint of inspect, at most one of each family."""
    return [str(endpoint[name]) for name in ADDRESSES if endpoint.get(name)]


def limits(document: Mapping[str, Any]) -> Limits:
    """Return the rule options in a network document; an empty one is the default network's."""
    options: Mapping[str, str] = document.get("Options") or {}

    def enabled(name: str) -> bool:
        return str(options.get(f"com.docker.network.bridge.{name}", "true")).lower() != "false"

    return Limits(
        internal=bool(document.get("Internal")),
        icc=enabled("enable_icc"),
        masquerade=enabled("enable_ip_masquerade"),
        past_firewall=str(options.get(BYPASS_FIREWALL_OPTION, "false")).lower()
        in ("1", "t", "true"),
    )


def subnet6(document: Mapping[str, Any]) -> IPv6Network | None:
    """Return the IPv6 subnet of a network, or None."""
    if document.get("EnableIPv6"):
        for pool in (document.get("IPAM") or {}).get("Config") or ():
            if ":" in (text := str(pool.get("Subnet") or "")):
                return IPv6Network(text, strict=False)
    return None


def _ports(
    container: AuditedContainer, addresses: list[str], settings: Mapping[str, Any]
) -> Result:
    """Compare the map elements with the container's addresses with the published ports."""
    has_ipv6 = any(":" in address for address in addresses)
    expected = published_ports(settings.get("Ports") or {}, ipv6=has_ipv6)
    actual: set[str] = set()
    objects = container.snapshot.packet_filter
    for address in addresses:
        actual |= map_elements(objects, address)
    diverted = sorted(diverted_ports(objects, addresses, expected))
    extra, missing = sorted(actual - expected), sorted(expected - actual)
    effective = f"{len(actual)} forward to {', '.join(addresses)}"
    if extra:
        effective += f"; not requested: {', '.join(extra)}"
    if missing:
        effective += f"; missing: {', '.join(missing)}"
    if diverted:
        effective += f"; sent to another address: {', '.join(diverted)}"
    wrong = extra or missing or diverted
    return Result("published ports", "network", quantity(len(expected), "port"), effective,
                  EVIDENCE, verdict_of(not wrong, None))  # fmt: skip


def endpoint_table(objects: list[dict[str, Any]], address: str, mac: str, port: str) -> str | None:
    """Return the table whose endpoint set has the address with this MAC and port, or None.

    Other engines may have the same addresses on bridges of their own.
    """
    name = "endpoints6" if ":" in address else "endpoints"
    for entry in objects:
        nft_set = entry.get("set", {})
        if nft_set.get("name") == name and nft_set.get("family") == "bridge":
            for element in nft_set.get("elem", ()):
                if [str(part) for part in concat(element)] == [port, mac.lower(), address]:
                    return str(nft_set["table"])
    return None


def port_of(endpoint: Mapping[str, Any]) -> str:
    """Return the name of the host's end of an endpoint's link."""
    return PORT_PREFIX + str(endpoint.get("EndpointID"))[:PORT_ID_LENGTH]


def foreign_senders(objects: list[dict[str, Any]], endpoint: Mapping[str, Any]) -> list[str]:
    """Return the addresses beside its own that the endpoint's port may send from. Pure."""
    port = port_of(endpoint)
    mac = str(endpoint.get("MacAddress") or "").lower()
    own = {(mac, address) for address in addresses_of(endpoint)}
    if endpoint.get("GlobalIPv6Address"):
        own.add((mac, str(link_local_address(mac))))
    found = []
    for entry in objects:
        nft_set = entry.get("set", {})
        if nft_set.get("name") not in SENDERS or nft_set.get("family") != "bridge":
            continue
        for element in nft_set.get("elem", ()):
            name, *sender = (str(part) for part in concat(element))
            if name == port and tuple(sender) not in own:
                found.append(" ".join(sender))
    return found


def named_bridge(document: Mapping[str, Any]) -> str:
    """Return the bridge of a user-defined network; '' for the default network."""
    if not document or document.get("Name") == "bridge":
        return ""
    return str((document.get("Options") or {}).get(NAME_OPTION) or f"br-{document['Id'][:12]}")


def bridge_of(table: str) -> str:
    """Return the bridge that a table is named after."""
    bridge = table.removeprefix("jaula_")
    return bridge if table_name(bridge) == table else table


def differences(expected: Rules, loaded: Rules) -> list[str]:
    """Return missing rules and rules that are not the engine's, by chain."""
    result = []
    for (family, table), body in expected.items():
        actual = loaded.get((family, table), [])
        for kind, item in body:
            if [kind, item] not in actual:
                result.append(f"missing in {family} {_place(kind, item)}")
        for kind, item in actual:
            if [kind, item] not in body:
                result.append(f"not the engine's: {family} {_place(kind, item)}")
    return list(dict.fromkeys(result))


def _place(kind: str, item: Mapping[str, Any]) -> str:
    return f"chain {item['name']}" if kind == "chain" else f"a rule of {item['chain']}"


def published_ports(ports: Mapping[str, Any], *, ipv6: bool = False) -> set[str]:
    """Return published ports of inspect as ``address protocol hostport -> port``.

    A container without ``ipv6`` has no rules for IPv6 addresses: a proxy serves them.
    """
    result = set()
    for inside, bindings in ports.items():
        number, _, protocol = inside.partition("/")
        for binding in bindings or ():
            address, host = str(binding.get("HostIp") or "0.0.0.0"), binding.get("HostPort")
            if ipv6 or ":" not in address:
                result.add(f"{address} {protocol or 'tcp'} {host} -> {number}")
    return result


def diverted_ports(
    objects: list[dict[str, Any]], addresses: Collection[str], published: Collection[str]
) -> set[str]:
    """Return the map elements that send a published port of the host to another address. Pure."""
    sources = {text.partition(" -> ")[0] for text in published}
    return {
        f"{source} -> {each.target} {each.target_port}"
        for each in forwards(objects)
        if (source := _source(each)) in sources and each.target not in addresses
    }


def map_elements(objects: list[dict[str, Any]], address: str) -> set[str]:
    """Return the map elements of the engine that forward to ``address``, in the same form. Pure."""
    return {
        f"{_source(each)} -> {each.target_port}"
        for each in forwards(objects)
        if each.target == address
    }


def _source(forward: Forward) -> str:
    return f"{forward.address} {forward.protocol} {forward.port}"
