"""Network: interfaces and addresses of the container's namespace.

Evidence: /proc/<pid>/net/dev and fib_trie, which show the network namespace of the process. The
kernel makes a device in each namespace for a tunnel module; rtnetlink tells its kind, and a link of
another kind that has its name is an interface like any other.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of
from jaula.kernel.rtnetlink import Link

INFO = CheckInfo(
    id="network",
    layer="network",
    title="Interfaces and addresses",
    reason="An interface that was not requested reaches a network without firewall rules.",
    references=("I18", "CIS 5.10", "network_namespaces(7)"),
    evidence="/proc/<pid>/net/dev, fib_trie",
    advice="restart it: interfaces are created again",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for the interfaces and one for the addresses that the engine assigned.

    The network that CNI plugins have given to a pod has checks of its own.
    """
    if container.on_pod_network or container.on_sink:
        return
    mode = container.text("NetworkMode") or "bridge"
    settings = (container.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    members = [
        name
        for name, each in settings.items()
        if each.get("IPAddress") or each.get("GlobalIPv6Address")
    ]
    names = interfaces(container.read("net/dev"))
    fallback = {link.name for link in container.network.links if is_fallback(link)}
    external = [name for name in names if name != "lo" and name not in fallback]
    evidence = container.path("net/dev")
    shared = mode == "host" or mode.startswith("container:")
    if shared:
        by = container.flag(f"--network={mode}")
        if container.pod and mode != "host":
            by = f"with {container.shared_with(mode)}"
        requested, holds = f"shared ({by})", True
    elif not members:  # also if it was disconnected from its networks
        by, requested, holds = None, "loopback only", not external
    else:
        count = len(members)
        joined = mode if count == 1 else ", ".join(members)
        by, requested = None, f"loopback and {'one' if count == 1 else count} on {joined}"
        holds = len(external) == count
    yield Result(
        "interfaces", "network", requested, ", ".join(names), evidence, verdict_of(holds, by)
    )
    if shared:
        return
    expected = sorted(str(n.get("IPAddress")) for n in settings.values() if n.get("IPAddress"))
    local = sorted(addresses(container.read("net/fib_trie")))
    holds = local == expected
    yield Result(
        "addresses", "network", ", ".join(expected) or "none", ", ".join(local) or "none",
        container.path("net/fib_trie"), verdict_of(holds, None),
    )  # fmt: skip


def interfaces(text: str) -> list[str]:
    """Return the names in /proc/net/dev."""
    return [line.partition(":")[0].strip() for line in text.splitlines() if ":" in line]


def addresses(text: str) -> set[str]:
    """Return local IPv4 addresses of /proc/net/fib_trie, without loopback and broadcast."""
    result: set[str] = set()
    prefix = ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            prefix = words[1]
        elif (
            words[:1] == ["/32"]
            and words[1:3] == ["host", "LOCAL"]
            and not prefix.startswith("127.")
        ):
            result.add(prefix)
    return result


FALLBACK_DEVICES = {
    "tunl0": "ipip",
    "gre0": "gre",
    "gretap0": "gretap",
    "erspan0": "erspan",
    "ip_vti0": "vti",
    "ip6_vti0": "vti6",
    "sit0": "sit",
    "ip6tnl0": "ip6tnl",
    "ip6gre0": "ip6gre",
}
"""Kinds of the devices that a tunnel module creates in every namespace, by their names."""


def is_fallback(link: Link) -> bool:
    """Return whether a link is a tunnel module's own device, which carries nothing. Pure."""
    return FALLBACK_DEVICES.get(link.name) == link.kind and not link.up
