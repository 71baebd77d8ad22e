"""Network of a honeypot: one link, whose other end is in a namespace without a further link.

Evidence: netlink dumps of the container's network namespace and of the sink's. The sink is found by
its process: the one whose namespace has the other end of the container's link. So a packet of the
container has no way to leave, whatever the rules and routes of the host are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address

from jaula.features.honeypot.run_directory import ADDRESS, ADDRESS6, INTERFACE, SINK, SINK_INTERFACE
from jaula.features.verify.checks.network import addresses, is_fallback
from jaula.features.verify.checks.sysctls import ipv6_addresses
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, verdict_of
from jaula.kernel.namespaces import open_namespace
from jaula.kernel.rtnetlink import Link, Rtnetlink

INFO = CheckInfo(
    id="honeypot-network",
    layer="network",
    title="Network of a honeypot",
    reason="A second link, of the container or of its sink, lets an intruder attack others.",
    references=("I18", "network_namespaces(7)", "veth(4)"),
    evidence="rtnetlink of the container's network namespace and of the sink's",
    advice="kill it: its supervisor makes the link at each start",
)
_ONLY_LINK = "the only link of its namespace"


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield the rows of a honeypot; none for another container."""
    if not container.on_sink:
        return
    links = _external(container.network.links)
    names = ", ".join(sorted(link.name for link in links)) or "loopback only"
    inner = links[0] if len(links) == 1 and links[0].name == INTERFACE else None
    yield Result(
        "interfaces", "network", f"loopback and {INTERFACE}", names,
        container.path("net/dev"), verdict_of(inner is not None, None),
    )  # fmt: skip
    local = sorted(addresses(container.read("net/fib_trie")))
    local += _addresses6(container)
    holds = set(local) <= {ADDRESS, ADDRESS6} and ADDRESS in local
    yield Result(
        "addresses", "network", f"{ADDRESS}, {ADDRESS6}", ", ".join(local) or "none",
        container.path("net/fib_trie"), verdict_of(holds, None),
    )  # fmt: skip
    yield _sink(container, inner)


def _addresses6(container: AuditedContainer) -> list[str]:
    """Return the IPv6 addresses of its interfaces, in their short form."""
    numbers = [text.split()[1] for text in ipv6_addresses(container)]
    return [str(ip_address(bytes.fromhex(number))) for number in numbers]


def _external(links: tuple[Link, ...]) -> list[Link]:
    return [link for link in links if link.name != "lo" and not is_fallback(link)]


def _sink(container: AuditedContainer, inner: Link | None) -> Result:
    """Return the row on the other end of the container's link."""
    own = open_namespace(container.pid, "net")
    try:
        with Rtnetlink(own) as netlink:
            return _sink_of(inner, netlink)
    finally:
        os.close(own)


def _sink_of(inner: Link | None, own: Rtnetlink) -> Result:
    for pid in _processes() if inner is not None else ():
        try:
            netns = open_namespace(pid, "net")
        except OSError:
            continue  # it has exited
        try:
            with Rtnetlink(netns) as netlink:
                links = _external(tuple(netlink.links()))
            peer = own.netns_id(netns)
        finally:
            os.close(netns)
        outer = next((link for link in links if link.name == SINK_INTERFACE), None)
        if inner is None or outer is None or not _is_pair(inner, outer, peer):
            continue
        names = ", ".join(link.name for link in links)
        return Result(
            "sink", "network", _ONLY_LINK, f"{names} of process {pid}", f"/proc/{pid}/ns/net",
            verdict_of(len(links) == 1, None),
        )  # fmt: skip
    return Result(
        "sink", "network", _ONLY_LINK, "no sink has the other end of a link", "/proc",
        Verdict.FAILS,
    )  # fmt: skip


def _is_pair(inner: Link, outer: Link, netns: int) -> bool:
    """Return whether two links are the ends of one veth pair. Pure.

    ``netns`` is the id of the namespace of ``outer`` in that of ``inner``: the links of all
    honeypots have the same indexes.
    """
    kinds = inner.kind == outer.kind == "veth"
    return (
        kinds
        and inner.parent_netns == netns >= 0
        and inner.parent == outer.index
        and outer.parent == inner.index
    )


def _processes() -> Iterator[int]:
    """Yield the processes with the name of a sink; another program can have that name as well."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as file:
                if file.read().strip() == SINK:
                    yield int(name)
        except OSError:
            continue
