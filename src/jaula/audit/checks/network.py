"""The network: interfaces and addresses of the container's own namespace.

Evidence: /proc/<pid>/net/dev and fib_trie, which show the network namespace of the process.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of

INFO = CheckInfo(
    id="network",
    layer="network",
    title="Interfaces and addresses",
    reason="An interface that nobody asked for is a door to a network that no rule watches.",
    references=("I18", "CIS 5.10", "network_namespaces(7)"),
    evidence="/proc/<pid>/net/dev, fib_trie",
    advice="restart it: interfaces are made anew",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Interfaces, and the address that the engine gave."""
    mode = container.text("NetworkMode") or "bridge"
    settings = (container.inspect.get("NetworkSettings") or {}).get("Networks") or {}
    members = [name for name, each in settings.items() if each.get("IPAddress")]
    found = interfaces(container.read("net/dev"))
    others = [name for name in found if name != "lo" and not _tunnel(name)]
    evidence = container.path("net/dev")
    shared = mode == "host" or mode.startswith("container:")
    if shared:
        by = f"--network={mode}"
        requested, holds = f"shared ({by})", True
    elif mode == "none":
        by, requested, holds = None, "loopback only", not others
    else:
        count = max(1, len(members))
        where = mode if count == 1 else ", ".join(members)
        by, requested = None, f"loopback and {'one' if count == 1 else count} on {where}"
        holds = len(others) == count
    yield Result(
        "interfaces", "network", requested, ", ".join(found), evidence, verdict_of(holds, by)
    )
    if shared:
        return
    wanted = sorted(str(n.get("IPAddress")) for n in settings.values() if n.get("IPAddress"))
    local = sorted(addresses(container.read("net/fib_trie")))
    holds = local == wanted and (bool(wanted) or mode == "none")
    yield Result(
        "addresses", "network", ", ".join(wanted) or "none", ", ".join(local) or "none",
        container.path("net/fib_trie"), verdict_of(holds, None),
    )  # fmt: skip


def interfaces(text: str) -> list[str]:
    """Names in /proc/net/dev."""
    return [line.partition(":")[0].strip() for line in text.splitlines() if ":" in line]


def addresses(text: str) -> set[str]:
    """Local IPv4 addresses in /proc/net/fib_trie, without the loopback network and broadcasts."""
    found: set[str] = set()
    last = ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            last = words[1]
        elif (
            words[:1] == ["/32"] and words[1:3] == ["host", "LOCAL"] and not last.startswith("127.")
        ):
            found.add(last)
    return found


def _tunnel(name: str) -> bool:
    """Fallback devices that the kernel makes in every namespace when a tunnel module is loaded."""
    return name in (
        "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"
    )  # fmt: skip
