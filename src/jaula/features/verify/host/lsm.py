"""Security modules of the host, and whether those with labels enforce."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.host.host import Host
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, verdict_of
from jaula.security.lsm import detect

INFO = CheckInfo(
    id="host-modules",
    layer="host",
    title="Security modules",
    reason="A label or a Landlock domain confines a process even if a namespace fails.",
    references=("I9", "CIS 5.2", "CIS 5.3"),
    evidence="/sys/kernel/security/lsm, lsm_list_modules(2), /sys/fs/selinux/enforce",
    advice="boot with lsm=landlock,yama,apparmor (or selinux) and load a policy",
)


def check(host: Host) -> Iterator[Result]:
    """Yield a row for labels and one for Landlock."""
    modules = detect.active()
    labelling = [name for name in ("selinux", "apparmor") if name in modules]
    permissive = "selinux" in labelling and not detect.selinux_enforcing()
    weak = None
    if permissive:
        weak = "SELinux only logs"
    elif not labelling:
        weak = "this kernel has none"
    evidence = "/sys/kernel/security/lsm, lsm_list_modules(2)"
    yield Result("labels", "host", "SELinux or AppArmor" + (f" ({weak})" if weak else ""),
              ", ".join(modules) or "unknown", evidence, verdict_of(True, weak))  # fmt: skip
    version = detect.landlock()
    weak = None if version else "this kernel has none"
    yield Result("landlock", "host", "active" + (f" ({weak})" if weak else ""),
              f"version {version}" if version else "none", "landlock_create_ruleset(2)",
              verdict_of(True, weak))  # fmt: skip
