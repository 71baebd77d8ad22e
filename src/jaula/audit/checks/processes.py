"""The other processes of the container: none has more than was asked for.

Evidence: /proc/<pid>/task/<tid>/status of each thread of each process that is in the container's
mount namespace, or in its process namespace with its user namespace or the host's. A process that
somebody put there from the host (nsenter(1)) brings the capabilities of the host's root along and
has no filter; so has one of ``exec --privileged``, which the engine knows. Where labels are given,
/proc/<pid>/attr says which one a process has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of
from jaula.kernel.apparmor import parse_current
from jaula.kernel.capabilities import parse_status_masks
from jaula.security.capabilities import decode, mask
from jaula.security.lsm import detect

MAX_THREADS = 10_000  # threads that are looked at

INFO = CheckInfo(
    id="processes",
    layer="capabilities",
    title="Other processes",
    reason="One process with more power than the container is enough: what runs beside it can "
    "use it by ptrace, by its descriptors, or by a file that it reads.",
    references=("I7", "I22", "CIS 5.23", "CIS 5.24", "CVE-2016-9962", "nsenter(1)"),
    evidence="/proc/<pid>/task/<tid>/status, /proc/<pid>/attr and ns of every process inside",
    advice="end the process; use jaula exec, which gives what the container has, not nsenter",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """One row."""
    allowed = mask(container.capabilities.bounding)
    filtered = container.linux.seccomp is not None
    found, wrong = 0, []
    for pid in pids_inside(container):
        label = unexpected_label(container, pid)
        for status in statuses(container, pid):
            found += 1
            if found > MAX_THREADS:
                raise ValueError(f"more than {MAX_THREADS} threads in the container")
            fault = excess_privileges(
                status, allowed, filtered, container.process.no_new_privileges
            )
            if fault or label:
                told = ", ".join(filter(None, (fault, label)))
                wrong.append(f"{_value(status, 'Name')} {pid}: {told}")
    by = None
    if wrong and container.inspect.get("ExecIDs"):
        by = "exec --privileged"
    effective = "; ".join(dict.fromkeys(wrong)) or f"{found} other threads, none has more"
    requested = "no more than the container has" + (f" ({by})" if by else "")
    verdict = verdict_of(not wrong or by is not None, by)
    yield Result("processes", "capabilities", requested, effective,
              f"{container.proc_root}/*/task/*/status", verdict)  # fmt: skip


def pids_inside(container: AuditedContainer) -> list[int]:
    """Processes that are in the container by their namespaces."""
    mine = {kind: container.link(f"ns/{kind}") for kind in ("mnt", "pid", "user")}
    host = os.readlink(f"{container.proc_root}/self/ns/user")
    chosen = []
    for pid, (mounts, pids, users) in container.snapshot.processes.items():
        if mounts == mine["mnt"] or (
            pids == mine["pid"] and container.own_pids and users in (mine["user"], host)
        ):
            chosen.append(pid)
    return chosen


def statuses(container: AuditedContainer, pid: int) -> Iterator[str]:
    """The status of each thread; the first process and those that ended meanwhile are left out."""
    directory = f"{container.proc_root}/{pid}/task"
    try:
        threads = [name for name in os.listdir(directory) if int(name) != container.pid]
    except (FileNotFoundError, ProcessLookupError):
        return
    for thread in threads:
        try:
            with open(f"{directory}/{thread}/status", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "\nState:\tZ" not in text:
            yield text


def unexpected_label(container: AuditedContainer, pid: int) -> str:
    """What label a process has that is not the container's; empty: none.

    A program may change its SELinux type and its AppArmor profile where the policy says so. Its
    level, which keeps containers apart, stays, and none becomes unconfined.
    """
    level = (container.process.selinux_label or "").split(":", 3)[3:]
    profile = container.process.apparmor_profile or "unconfined"
    try:
        if detect.selinux() and level:
            found = _text(f"{container.proc_root}/{pid}/attr/current")
            if found.split(":", 3)[3:] != level:
                return f"runs as {found}"
        if detect.apparmor() and profile != "unconfined":
            found = _text(f"{container.proc_root}/{pid}/attr/apparmor/current")
            if parse_current(found)[0] == "unconfined":
                return "runs unconfined"
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended
    return ""


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\0\n")


def excess_privileges(status: str, allowed: int, filtered: bool, no_new_privileges: bool) -> str:
    """What a thread has beyond the container, in words; empty: nothing."""
    found = []
    extra = 0
    for value in parse_status_masks(status).values():
        extra |= value & ~allowed
    if extra:
        names = decode(extra)
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        found.append(f"has {shown}")
    if filtered and _value(status, "Seccomp") == "0":
        found.append("has no filter")
    if no_new_privileges and _value(status, "NoNewPrivs") == "0":
        found.append("may gain privileges")
    return ", ".join(found)


def _value(status: str, key: str) -> str:
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    raise KeyError(key)
