"""Network of a pod: interfaces, addresses and routes are those that the CNI plugins have reported.

Evidence: netlink dumps of the pod's network namespace and of the reader's, /proc/<pid>/net and the
packet filter. The engine stores the result of ADD; plugins run on the host as root and are not
verified themselves. Rules of another program that translate to the pod are those of host ports and
of services, so they are named and do not fail. Packets between pods are filtered by the plugins.

A container of the pod with CAP_NET_ADMIN may add routes, addresses and virtual interfaces. It
cannot make an interface whose other end is outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from typing import Any

from jaula.features.verify.checks.links import (
    LOCAL_TABLE,
    Translation,
    changeable,
    route_text,
    settings,
    translations,
)
from jaula.features.verify.checks.network import addresses, is_fallback
from jaula.features.verify.checks.sysctls import ipv6_addresses
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, quantity, verdict_of
from jaula.kernel.rtnetlink import Link, Route

IFNAME = "eth0"  # if the plugins reported no interface
_VIRTUAL = frozenset({"bridge", "dummy", "tun", "vrf", "wireguard"})
"""Kinds that a program in the pod can make, and that lead nowhere outside by themselves."""

INFO = CheckInfo(
    id="pod-network",
    layer="network",
    title="Network of a pod",
    reason="An interface, address or route that the plugins did not add reaches a network without "
    "their rules, or is taken for another pod.",
    references=("I18", "CVE-2020-10749", "network_namespaces(7)", "rtnetlink(7)"),
    evidence="the stored result of the CNI plugins, rtnetlink of both network namespaces, "
    "/proc/<pid>/net, nft -j list ruleset",
    advice="find the program that joined the pod's network namespace; delete the pod",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield the rows of a sandbox with a network of its own; none for another container."""
    if not container.on_pod_network:
        return
    network: Mapping[str, Any] = container.pod.get("Network") or {}
    reported = [str(address) for address in network.get("Addresses") or ()]
    if not network:  # of an engine that stored the addresses alone, or without plugins
        reported = [f"{a}/{32 if '.' in a else 128}" for a in container.pod.get("Addresses") or ()]
    names = {str(each["Name"]) for each in network.get("Interfaces") or ()}
    names = names or ({IFNAME} if reported else set())
    by = _able(container)
    yield _interfaces(container, names, by)
    yield from _addresses(container, reported, names, by)
    yield _links(container, network)
    extra = [
        route_text(route)
        for route in container.network.routes
        if not expected_route(route, reported, network)
    ]
    count = quantity(len(container.network.routes), "route")
    yield changeable("routes", "those of the plugins", ", ".join(extra), count, by)
    yield settings(container, by)
    yield _translations(container, [address.partition("/")[0] for address in reported])


def _able(container: AuditedContainer) -> str | None:
    """Return the capability with which a container of the pod may change its network, or None."""
    names = [
        other.pod_name
        for other in container.others
        if "CAP_NET_ADMIN" in other.capabilities.bounding
    ]
    return f"CAP_NET_ADMIN of {', '.join(sorted(names))}" if names else None


def _interfaces(container: AuditedContainer, names: set[str], by: str | None) -> Result:
    links = [link for link in container.network.links if not is_fallback(link)]
    missing = names - {link.name for link in links}
    extra = [link for link in links if link.name not in names and link.name != "lo"]
    foreign = [link for link in extra if not _is_inner(link, links)]
    wrong = [f"no {name}" for name in sorted(missing)]
    wrong += [f"{link.name} was added" for link in foreign]
    excused = [link.name for link in extra if link not in foreign]
    if excused and by is None:
        wrong += [f"{name} was added" for name in excused]
    reason = by if excused and not wrong else None
    return Result(
        "interfaces", "network",
        ", ".join(["lo", *sorted(names)]) + (f" ({reason})" if reason else ""),
        "; ".join([", ".join(link.name for link in links), *wrong]),
        "rtnetlink of its namespace", verdict_of(not wrong, reason),
    )  # fmt: skip


def _is_inner(link: Link, links: list[Link]) -> bool:
    """Return whether a link is one that leads nowhere outside of the namespace. Pure."""
    if link.kind in _VIRTUAL:
        return True
    return link.kind == "veth" and any(
        other.index == link.parent and other.parent == link.index for other in links
    )


def _addresses(
    container: AuditedContainer, reported: list[str], names: set[str], by: str | None
) -> Iterator[Result]:
    """Yield a row for each family."""
    plain = [ip_interface(address).ip for address in reported]
    expected4 = sorted(str(ip) for ip in plain if ip.version == 4)
    local = addresses(container.read("net/fib_trie"))
    missing = [ip for ip in expected4 if ip not in local]
    extra = sorted(local - set(expected4))
    reason = by if extra and not missing else None
    effective = ", ".join(sorted(local)) or "none"
    requested = ", ".join(expected4) or "none"
    yield Result(
        "addresses", "network", requested + (f" ({reason})" if reason else ""),
        effective + (f"; missing: {', '.join(missing)}" if missing else ""),
        container.path("net/fib_trie"), verdict_of(not missing and (not extra or bool(by)), reason),
    )  # fmt: skip
    expected6 = [ip for ip in plain if isinstance(ip, IPv6Address)]
    present = [line.split() for line in ipv6_addresses(container)]
    present6 = [(name, IPv6Address(int(text, 16))) for name, text in present]
    extra6 = [
        f"{name} {ip}"
        for name, ip in present6
        if ip not in expected6 and not (ip.is_link_local and (name in names or by is not None))
    ]
    missing6 = [str(ip) for ip in expected6 if ip not in {own for _, own in present6}]
    reason = by if extra6 and not missing6 else None
    requested = ", ".join(map(str, expected6)) or "no address but link-local ones"
    effective = ", ".join(f"{name} {ip}" for name, ip in present6) or "none"
    yield Result(
        "ipv6", "network", requested + (f" ({reason})" if reason else ""),
        effective + (f"; missing: {', '.join(missing6)}" if missing6 else ""),
        container.path("net/if_inet6"),
        verdict_of(not missing6 and (not extra6 or bool(by)), reason),
    )  # fmt: skip


def _links(container: AuditedContainer, network: Mapping[str, Any]) -> Result:
    """Return a row on the interfaces that the plugins reported, and their ends on the host."""
    inner = {link.name: link for link in container.network.links}
    outer = {link.index: link for link in container.snapshot.links}
    on_host = [str(name) for name in network.get("HostInterfaces") or ()]
    wrong = []
    for interface in network.get("Interfaces") or ():
        name, mac = str(interface["Name"]), str(interface.get("MacAddress") or "")
        link = inner.get(name)
        if link is None:
            continue  # the row of the interfaces reports it
        if mac and link.mac != mac:
            wrong.append(f"{name} has the address {link.mac}, not {mac}")
        if not link.up:
            wrong.append(f"{name} is down")
        if link.kind == "veth" and on_host:
            wrong += _wrong_end(link, outer, on_host)
    count = quantity(len(network.get("Interfaces") or ()), "interface")
    return Result(
        "links", "network", f"{count} of the plugins", "; ".join(wrong) or "as reported",
        "rtnetlink of both namespaces", verdict_of(not wrong, None),
    )  # fmt: skip


def _wrong_end(link: Link, outer: Mapping[int, Link], on_host: list[str]) -> Iterator[str]:
    """Yield what is wrong with the end of a veth pair on the host, of the reported names. Pure."""
    end = outer.get(link.parent)
    if end is None or end.parent != link.index or end.name not in on_host:
        yield f"the other end of {link.name} is not {' or '.join(on_host)}"
        return
    bridges = [each for each in outer.values() if each.name in on_host and each.kind == "bridge"]
    if bridges and end.master not in {each.index for each in bridges}:
        master = outer[end.master].name if end.master in outer else "none"
        yield f"{end.name} is on the bridge {master}, not {bridges[0].name}"


def expected_route(route: Route, reported: list[str], network: Mapping[str, Any]) -> bool:
    """Return whether a route is the kernel's own, or one of the plugins. Pure.

    A gateway may be link-local, whatever was reported: it is on the link of the plugin.
    """
    if route.table == LOCAL_TABLE:
        return True
    gateways = {ip_address(str(each)) for each in network.get("Gateways") or ()}
    gateway = ip_address(route.gateway) if route.gateway else None
    if gateway is not None and gateway not in gateways and not gateway.is_link_local:
        return False
    if not route.destination:
        return True
    destination = ip_network(f"{route.destination}/{route.prefix}", strict=False)
    if destination.is_link_local or destination.is_multicast or destination.is_loopback:
        return True
    known = [ip_interface(address).network for address in reported]
    known += [ip_network(str(each), strict=False) for each in network.get("Destinations") or ()]
    return destination in known or (
        destination.num_addresses == 1 and destination.network_address in gateways
    )


def _translations(container: AuditedContainer, own: list[str]) -> Result:
    """Return a row that names the translations to the pod: of host ports, services and others."""
    rows: list[Translation] = container.snapshot.derived("translations", translations)
    found = [row.place for row in rows if any(row.targets(address) for address in own)]
    ports = ", ".join(map(str, container.pod.get("HostPorts") or ()))
    by = f"hostPort {ports}" if ports else "host ports and services of the node" if found else None
    return Result(
        "foreign translations", "network", by or "none", "; ".join(dict.fromkeys(found)) or "none",
        "nft list ruleset", verdict_of(True, by),
    )  # fmt: skip
