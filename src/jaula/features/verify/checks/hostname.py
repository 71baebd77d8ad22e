"""Host name: the container's own UTS namespace has the name that the engine gave it.

Evidence: kernel/hostname and kernel/domainname, read in the container's UTS namespace. A program
with CAP_SYS_ADMIN in the container may change both.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.network_view import read_setting
from jaula.features.verify.model.result import Result, verdict_of
from jaula.kernel.namespace_threads import in_unshared_thread, join_namespaces

INFO = CheckInfo(
    id="hostname",
    layer="namespaces",
    title="Host name",
    reason="Programs take a host name for an identity: of a peer, of a node, of a licence.",
    references=("I9", "CIS 5.21", "uts_namespaces(7)"),
    evidence="kernel/hostname and kernel/domainname in the container's UTS namespace",
    advice="restart it, and find the program that changed the name",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for a UTS namespace of the container's own."""
    name = container.spec.hostname
    if "uts" not in container.own_kinds or name is None:
        return

    def read() -> tuple[str, str]:
        join_namespaces(container.pid, ("uts",))
        return read_setting("kernel/hostname"), read_setting("kernel/domainname")

    requested = (name, container.spec.domainname or "(none)")
    actual = in_unshared_thread(read)
    sysctls = container.host_config.get("Sysctls") or {}
    same = actual[0] == requested[0] and (
        actual[1] == requested[1] or "kernel.domainname" in sysctls
    )
    able = "CAP_SYS_ADMIN" in container.capabilities.bounding
    by = "CAP_SYS_ADMIN" if able and not same else None
    yield Result(
        "host name", "namespaces", name + (f" ({by})" if by else ""), " ".join(actual),
        f"/proc/sys/kernel/hostname in {container.path('ns/uts')}",
        verdict_of(same or by is not None, by),
    )  # fmt: skip
