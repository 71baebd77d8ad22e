"""Mandatory access control by labels: of the first process and of its files.

Evidence: /proc/<pid>/attr/current, or attr/apparmor/current (proc_pid_attr(5)), and the attribute
``security.selinux`` of what the process sees as its root.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of
from jaula.kernel.apparmor import parse_current
from jaula.runtime.init.lsm_labels import runs_under
from jaula.security.lsm import detect

INFO = CheckInfo(
    id="labels",
    layer="lsm",
    title="Mandatory access control",
    reason="A label confines a process also where it has become root and left its namespaces.",
    references=("I9", "CIS 5.2", "CIS 5.3", "CVE-2019-16884", "CVE-2025-52881"),
    evidence="/proc/<pid>/attr/current, attr/apparmor/current; security.selinux of the files",
    advice="start it without label=disable and apparmor=unconfined, and load the profile again",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """One row for each module that labels, or one that says there is none."""
    selinux, apparmor = detect.selinux(), detect.apparmor()
    if selinux:
        yield _selinux(container)
        yield _files(container)
    if apparmor:
        yield _apparmor(container)
    if not selinux and not apparmor:
        labelled = container.process.selinux_label or container.process.apparmor_profile
        yield Result(
            "label", "lsm", labelled or "none: neither SELinux nor AppArmor here",
            f"modules in force: {', '.join(detect.active()) or 'not told'}",
            "/sys/kernel/security/lsm, lsm_list_modules(2)",
            verdict_of(not labelled or labelled == "unconfined", None),
        )  # fmt: skip


def _selinux(container: AuditedContainer) -> Result:
    wanted = container.process.selinux_label
    actual = container.read("attr/current").rstrip("\0\n")
    by = selinux_disabled_by(container)
    mode = "" if detect.selinux_enforcing() else ", permissive"
    holds = actual == wanted if wanted else by is not None
    return Result(
        "selinux label", "lsm", wanted or f"none ({by or 'not asked for'})", actual + mode,
        container.path("attr/current"), verdict_of(holds and (not mode or by is not None), by),
    )  # fmt: skip


def selinux_disabled_by(container: AuditedContainer) -> str | None:
    """The flag for which a container runs as the host's privileged ones do, if there is one."""
    options = container.security_option("label")
    if "disable" in options:
        return "label=disable"
    if options:
        return None  # a label that was named
    if container.privileged:
        return "--privileged"
    shared = [flag for flag, key in _SHARING if container.text(key) == "host"]
    return f"{shared[0]} host" if shared else None


_SHARING = (("--pid", "PidMode"), ("--ipc", "IpcMode"))


def _files(container: AuditedContainer) -> Result:
    wanted = container.linux.mount_label
    value = os.getxattr(f"/proc/self/fd/{container.root}", "security.selinux")
    actual = value.rstrip(b"\0").decode(errors="replace")
    return Result(
        "selinux files", "lsm", wanted or "none", actual,
        f"security.selinux of {container.path('root')}", verdict_of(actual == wanted, None),
    )  # fmt: skip


def _apparmor(container: AuditedContainer) -> Result:
    wanted = container.process.apparmor_profile
    text = container.read("attr/apparmor/current")
    actual, mode = parse_current(text)
    by = None
    if not wanted or wanted == "unconfined":
        by = apparmor_disabled_by(container)
        holds = by is not None
    else:
        holds = runs_under(wanted, text) and mode == "enforce"
    return Result(
        "apparmor profile", "lsm", wanted or f"none ({by or 'not asked for'})",
        f"{actual} ({mode})" if mode else actual,
        container.path("attr/apparmor/current"), verdict_of(holds, by),
    )  # fmt: skip


def apparmor_disabled_by(container: AuditedContainer) -> str | None:
    """The flag for which there is no profile."""
    options = container.security_option("apparmor")
    if "unconfined" in options:
        return "apparmor=unconfined"
    return "--privileged" if container.privileged and not options else None
