"""The firewall of the container's bridge: every rule is there, and its own address is held to it.

Evidence: ``nft -j list ruleset``. The rules of the engine's two tables are compared, one by one,
with what the same kernel makes of the rules that :mod:`jaula.network.firewall.bridge_rules` writes; then the
container's element in the set of known ports, and the elements that lead to its address.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.host_snapshot import Rules, rules
from jaula.audit.model.result import Result, Verdict, verdict_of
from jaula.network.firewall.bridge_rules import Limits, table_name
from jaula.spec.network import BYPASS_FIREWALL_OPTION, NAME_OPTION, PARENT_DRIVERS

INFO = CheckInfo(
    id="firewall",
    layer="network",
    title="Firewall",
    reason="Without these rules a container can speak in another's name, reach the host's loopback "
    "services, or be reached from outside at ports that nobody published.",
    references=("I18", "CIS 5.9", "CIS 5.14", "CVE-2020-8558", "CVE-2020-13401", "CVE-2025-54388"),
    evidence="nft -j list ruleset",
    advice="the engine puts its tables back when they are deleted; restart it where single rules "
    "are missing, and find out which program edits tables that are not its own",
)

ADDRESSES = ("IPAddress", "GlobalIPv6Address")
EVIDENCE = "nft list ruleset"
MAPS = ("published", "published_everywhere")
ANYWHERE = {"ip": "0.0.0.0", "ip6": "::"}


def check(container: AuditedContainer) -> Iterator[Result]:
    """Rules, then the container's own elements; nothing where it is on no bridge."""
    settings = container.inspect.get("NetworkSettings") or {}
    mode = container.text("NetworkMode") or "bridge"
    if mode in ("host", "none") or mode.startswith("container:"):
        return
    networks = settings.get("Networks") or {}
    members = {name: e for name, e in networks.items() if e.get("IPAddress")}
    for name, endpoint in members.items():
        label = "" if len(members) == 1 else f" {name}"
        document = container.snapshot.network(name, str(endpoint.get("NetworkID")))
        if document.get("Driver") in PARENT_DRIVERS:
            continue  # nothing of the host is between the container and the wire
        yield from _bridge(container, endpoint, document, label)
    if members:
        addresses = [str(e[f]) for e in members.values() for f in ADDRESSES if e.get(f)]
        yield _ports(container, addresses, settings)


def _bridge(
    container: AuditedContainer,
    endpoint: Mapping[str, Any],
    document: Mapping[str, Any],
    label: str,
) -> Iterator[Result]:
    address = str(endpoint["IPAddress"])
    objects = container.snapshot.packet_filter
    table = endpoint_table(objects, address, str(endpoint.get("MacAddress") or ""))
    if table is None:
        yield Result(f"firewall{label}", "network", f"{address} held to its port",
                  "no set of the engine's knows it", EVIDENCE, Verdict.FAILS)  # fmt: skip
        return
    guard = _bridge_of(table)
    bridge = _named(document) or guard
    subnet = IPv4Network(f"{address}/{endpoint.get('IPPrefixLen') or 16}", strict=False)
    wanted = container.snapshot.expected(bridge, subnet, subnet6(document), limits(document), guard)
    found = rules(objects)
    wrong = differences(wanted, found)
    count = sum(len(body) for body in wanted.values())
    yield Result(f"firewall{label}", "network", f"{count} chains and rules of {bridge}",
              "; ".join(wrong) or "all in force", EVIDENCE, verdict_of(not wrong, None))  # fmt: skip


def limits(document: Mapping[str, Any]) -> Limits:
    """What a network's document changes in the rules; an empty one is the default network's."""
    options: Mapping[str, str] = document.get("Options") or {}

    def on(name: str) -> bool:
        return str(options.get(f"com.docker.network.bridge.{name}", "true")).lower() != "false"

    return Limits(
        internal=bool(document.get("Internal")),
        icc=on("enable_icc"),
        masquerade=on("enable_ip_masquerade"),
        past_firewall=str(options.get(BYPASS_FIREWALL_OPTION, "false")).lower()
        in ("1", "t", "true"),
    )


def subnet6(document: Mapping[str, Any]) -> IPv6Network | None:
    """The IPv6 subnet of a network that has one."""
    if document.get("EnableIPv6"):
        for pool in (document.get("IPAM") or {}).get("Config") or ():
            if ":" in (text := str(pool.get("Subnet") or "")):
                return IPv6Network(text, strict=False)
    return None


def _ports(
    container: AuditedContainer, addresses: list[str], settings: Mapping[str, Any]
) -> Result:
    """What leads to the container from outside, against what was published."""
    asked = published_ports(settings.get("Ports") or {}, ipv6=any(":" in a for a in addresses))
    leading: set[str] = set()
    for address in addresses:
        leading |= map_elements(container.snapshot.packet_filter, address)
    extra, missing = sorted(leading - asked), sorted(asked - leading)
    effective = f"{len(leading)} lead to {', '.join(addresses)}"
    if extra:
        effective += f"; not asked for: {', '.join(extra)}"
    if missing:
        effective += f"; missing: {', '.join(missing)}"
    return Result("published ports", "network", f"{len(asked)} ports", effective, EVIDENCE,
               verdict_of(not extra and not missing, None))  # fmt: skip


def endpoint_table(objects: list[dict[str, Any]], address: str, mac: str) -> str | None:
    """The table whose set of ports has the address with this MAC, or None."""
    for entry in objects:
        found = entry.get("set", {})
        if found.get("name") == "endpoints" and found.get("family") == "bridge":
            for element in found.get("elem", ()):
                parts = [str(part) for part in element.get("concat", ())]
                if parts[1:] == [mac.lower(), address]:
                    return str(found["table"])
    return None


def _named(document: Mapping[str, Any]) -> str:
    """The bridge of a user's network; '' for the default one's."""
    if not document or document.get("Name") == "bridge":
        return ""
    return str((document.get("Options") or {}).get(NAME_OPTION) or f"br-{document['Id'][:12]}")


def _bridge_of(table: str) -> str:
    bridge = table.removeprefix("jaula_")
    return bridge if table_name(bridge) == table else table


def differences(wanted: Rules, found: Rules) -> list[str]:
    """What is missing, and what is there though the engine did not write it, by chain."""
    told = []
    for (family, table), body in wanted.items():
        actual = found.get((family, table), [])
        for kind, item in body:
            if [kind, item] not in actual:
                told.append(f"missing in {family} {_place(kind, item)}")
        for kind, item in actual:
            if [kind, item] not in body:
                told.append(f"not the engine's: {family} {_place(kind, item)}")
    return list(dict.fromkeys(told))


def _place(kind: str, item: Mapping[str, Any]) -> str:
    return f"chain {item['name']}" if kind == "chain" else f"a rule of {item['chain']}"


def published_ports(ports: Mapping[str, Any], *, ipv6: bool = False) -> set[str]:
    """``address protocol hostport -> port`` of what inspect shows as published.

    To a container without ``ipv6`` a relay leads from there, and no rule.
    """
    found = set()
    for inside, places in ports.items():
        number, _, protocol = inside.partition("/")
        for place in places or ():
            address, host = str(place.get("HostIp") or "0.0.0.0"), place.get("HostPort")
            if ipv6 or ":" not in address:
                found.add(f"{address} {protocol or 'tcp'} {host} -> {number}")
    return found


def map_elements(objects: list[dict[str, Any]], address: str) -> set[str]:
    """The same of the elements of the engine's maps that lead to ``address``."""
    found = set()
    for entry in objects:
        kind = entry.get("map", {})
        if kind.get("name") not in MAPS or kind.get("family") not in ANYWHERE:
            continue
        for key, value in kind.get("elem", ()):
            target = value.get("concat", ())
            if len(target) == 2 and str(target[0]) == address:
                words = [str(word) for word in key["concat"]]
                where = words if len(words) == 3 else [ANYWHERE[kind["family"]], *words]
                found.add(f"{where[0]} {where[1]} {where[2]} -> {target[1]}")
    return found
