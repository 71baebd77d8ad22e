"""User namespaces: whether the engine, and every user, can create them."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.host.host import Host
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, Verdict, verdict_of

INFO = CheckInfo(
    id="host-users",
    layer="host",
    title="User namespaces",
    reason="They map root in a container to an unprivileged user. But for every user of the host "
    "they expose kernel code that was written for root.",
    references=("I9", "I25", "CIS 2.9", "CVE-2022-0185", "user_namespaces(7)"),
    evidence="/proc/sys/user/max_user_namespaces, kernel/unprivileged_userns_clone, "
    "kernel/apparmor_restrict_unprivileged_userns",
    advice="restrict them to root if no user needs them: kernel.unprivileged_userns_clone=0 "
    "(Debian) or kernel.apparmor_restrict_unprivileged_userns=1 (Ubuntu)",
)

SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
)


def check(host: Host) -> Iterator[Result]:
    """Yield a row for the engine and one for the host's users."""
    limit = host.setting("user/max_user_namespaces")
    verdict = verdict_of(limit != "0", None) if limit else Verdict.UNKNOWN
    yield Result("user namespaces", "host", "available to the engine", limit or "unknown",
              f"{host.proc}/sys/user/max_user_namespaces", verdict)  # fmt: skip
    restricted = [name for name, value in SWITCHES if host.setting(name) == value]
    weak = None if restricted or limit == "0" else "every user of this host may"
    yield Result("unprivileged user namespaces", "host",
              "root only" + (f" ({weak})" if weak else ""),
              ", ".join(f"{name} set" for name in restricted) or "not restricted",
              f"{host.proc}/sys/kernel", verdict_of(True, weak))  # fmt: skip
