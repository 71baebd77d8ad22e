"""The mandatory access control label of the first process, where the host has such a module.

Evidence: /proc/<pid>/attr/current, or attr/apparmor/current (proc_pid_attr(5)).
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.row import Row, judge
from jaula.audit.subject import Subject
from jaula.confine import lsm


def check(subject: Subject) -> Iterator[Row]:
    """One row for each module that labels, or one that says there is none."""
    selinux, apparmor = lsm.selinux(), lsm.apparmor()
    if selinux:
        yield _selinux(subject)
    if apparmor:
        yield _apparmor(subject)
    if not selinux and not apparmor:
        labelled = subject.process.selinux_label or subject.process.apparmor_profile
        yield Row(
            "label", "lsm", labelled or "none: neither SELinux nor AppArmor here",
            f"modules in force: {', '.join(lsm.active()) or 'not told'}",
            "/sys/kernel/security/lsm, lsm_list_modules(2)",
            judge(not labelled or labelled == "unconfined", None),
        )  # fmt: skip


def _selinux(subject: Subject) -> Row:
    wanted = subject.process.selinux_label
    actual = subject.read("attr/current").rstrip("\0\n")
    disabled = "disable" in subject.security_option("label")
    mode = "" if lsm.selinux_enforcing() else ", permissive"
    by = "label=disable" if disabled else "--privileged" if subject.privileged else None
    holds = actual == wanted if wanted else by is not None
    return Row(
        "selinux label", "lsm", wanted or f"none ({by or 'not asked for'})", actual + mode,
        subject.path("attr/current"), judge(holds and (not mode or by is not None), by),
    )  # fmt: skip


def _apparmor(subject: Subject) -> Row:
    wanted = subject.process.apparmor_profile
    actual = subject.read("attr/apparmor/current").rstrip("\0\n")
    options = subject.security_option("apparmor")
    confined = bool(wanted) and wanted != "unconfined"
    by = None
    if not confined:
        by = "apparmor=unconfined" if "unconfined" in options else "no AppArmor profile asked for"
    holds = actual == f"{wanted} (enforce)" if confined else not (options and not by)
    return Row(
        "apparmor profile", "lsm", wanted or f"none ({by})", actual,
        subject.path("attr/apparmor/current"), judge(holds, by),
    )  # fmt: skip
