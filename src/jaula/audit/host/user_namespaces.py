"""User namespaces: the engine can make them, and whether everyone can."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.host.host import Host
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.result import Result, Verdict, verdict_of

INFO = CheckInfo(
    id="host-users",
    layer="host",
    title="User namespaces",
    reason="They make root inside a nobody outside; but to every user of the host they open code "
    "of the kernel that was written for root.",
    references=("I9", "I25", "CIS 2.9", "CVE-2022-0185", "user_namespaces(7)"),
    evidence="/proc/sys/user/max_user_namespaces, kernel/unprivileged_userns_clone, "
    "kernel/apparmor_restrict_unprivileged_userns",
    advice="keep them for root; where no user needs them, kernel.unprivileged_userns_clone=0 "
    "(Debian) or kernel.apparmor_restrict_unprivileged_userns=1 (Ubuntu)",
)

SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
)


def check(host: Host) -> Iterator[Result]:
    """One row for the engine, one for the host's users."""
    limit = host.setting("user/max_user_namespaces")
    verdict = verdict_of(limit != "0", None) if limit else Verdict.UNKNOWN
    yield Result("user namespaces", "host", "available to the engine", limit or "not told",
              f"{host.proc}/sys/user/max_user_namespaces", verdict)  # fmt: skip
    closed = [name for name, value in SWITCHES if host.setting(name) == value]
    weak = None if closed or limit == "0" else "every user of this host may"
    yield Result("unprivileged user namespaces", "host",
              "root only" + (f" ({weak})" if weak else ""),
              ", ".join(f"{name} set" for name in closed) or "not restricted",
              f"{host.proc}/sys/kernel", verdict_of(True, weak))  # fmt: skip
