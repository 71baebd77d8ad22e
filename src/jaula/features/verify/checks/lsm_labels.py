"""Mandatory access control by labels, of the init process and its files.

Evidence: /proc/<pid>/attr/current, or attr/apparmor/current (proc_pid_attr(5)), and the attribute
``security.selinux`` of the container's root directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of
from jaula.kernel.apparmor_files import parse_current
from jaula.runtime.init.process_labels import parts_under
from jaula.security.lsm import detect

INFO = CheckInfo(
    id="labels",
    layer="lsm",
    title="Mandatory access control",
    reason="A label confines a process even if it has become root and left its namespaces.",
    references=("I9", "CIS 5.2", "CIS 5.3", "CVE-2019-16884", "CVE-2025-52881"),
    evidence="/proc/<pid>/attr/current, attr/apparmor/current; security.selinux of the files",
    advice="start it without label=disable and apparmor=unconfined, and reload the profile",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for each labelling module, or one that reports its absence."""
    selinux, apparmor = detect.selinux(), detect.apparmor()
    if selinux:
        yield _selinux(container)
        yield _files(container)
    if apparmor:
        yield _apparmor(container)
    if not selinux and not apparmor:
        labelled = container.process.selinux_label or container.process.apparmor_profile
        yield Result(
            "label", "lsm", labelled or "none: neither SELinux nor AppArmor",
            f"active modules: {', '.join(detect.active()) or 'unknown'}",
            "/sys/kernel/security/lsm, lsm_list_modules(2)",
            verdict_of(not labelled or labelled == "unconfined", None),
        )  # fmt: skip


def _selinux(container: AuditedContainer) -> Result:
    expected = container.process.selinux_label
    actual = container.read("attr/current").rstrip("\0\n")
    by = selinux_disabled_by(container)
    mode = "" if detect.selinux_enforcing() else ", permissive"
    holds = actual == expected if expected else by is not None
    return Result(
        "selinux label", "lsm", expected or f"none ({by or 'not requested'})", actual + mode,
        container.path("attr/current"), verdict_of(holds and (not mode or by is not None), by),
    )  # fmt: skip


def selinux_disabled_by(container: AuditedContainer) -> str | None:
    """Return the flag that gives the container the label of a privileged one, or None."""
    options = container.security_option("label")
    if "disable" in options:
        return "label=disable"
    if options:
        return None  # an explicit label
    if container.privileged:
        return container.flag("--privileged")
    shared = [flag for flag, key in _SHARED_NAMESPACES if container.text(key) == "host"]
    return f"{shared[0]} host" if shared else None


_SHARED_NAMESPACES = (("--pid", "PidMode"), ("--ipc", "IpcMode"))


def _files(container: AuditedContainer) -> Result:
    expected = container.linux.mount_label
    value = os.getxattr(f"/proc/self/fd/{container.root}", "security.selinux")
    actual = value.rstrip(b"\0").decode(errors="replace")
    return Result(
        "selinux files", "lsm", expected or "none", actual,
        f"security.selinux of {container.path('root')}", verdict_of(actual == expected, None),
    )  # fmt: skip


def _apparmor(container: AuditedContainer) -> Result:
    expected = container.process.apparmor_profile
    text = container.read("attr/apparmor/current")
    actual, mode = parse_current(text)
    by = None
    if not expected or expected == "unconfined":
        by = apparmor_disabled_by(container)
        holds = by is not None
    else:
        parts = parts_under(expected, text)
        holds = bool(parts) and _is_enforced(parts, mode)
    return Result(
        "apparmor profile", "lsm", expected or f"none ({by or 'not requested'})",
        f"{actual} ({mode})" if mode else actual,
        container.path("attr/apparmor/current"), verdict_of(holds, by),
    )  # fmt: skip


def _is_enforced(parts: list[str], mode: str) -> bool:
    """Return whether the kernel enforces profiles of a label.

    The label of a stack has the mode ``mixed`` if its profiles have different ones. Each restricts
    by its own.
    """
    if mode != "mixed":
        return mode == "enforce"
    modes = detect.apparmor_profiles() or {}
    return all(modes.get(part) == "enforce" for part in parts)


def apparmor_disabled_by(container: AuditedContainer) -> str | None:
    """Return the flag that disables the profile, or None."""
    options = container.security_option("apparmor")
    if "unconfined" in options:
        return "apparmor=unconfined"
    return container.flag("--privileged") if container.privileged and not options else None
