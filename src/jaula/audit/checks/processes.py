"""Other processes of the container: none has more privileges than requested.

Evidence: /proc/<pid>/task/<tid>/status of each thread of each process in the container's mount
namespace, or in its pid namespace with its own or the host's user namespace. A process that entered
from the host (nsenter(1)) has the capabilities of the host's root and no filter. So has one of
``exec --privileged``, which the engine records. With labels, /proc/<pid>/attr has the label of a
process.
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

MAX_THREADS = 10_000

INFO = CheckInfo(
    id="processes",
    layer="capabilities",
    title="Other processes",
    reason="One process with more privileges than the container is enough: the others can use it "
    "by ptrace, by its descriptors, or by a file that it reads.",
    references=("I7", "I22", "CIS 5.23", "CIS 5.24", "CVE-2016-9962", "nsenter(1)"),
    evidence="/proc/<pid>/task/<tid>/status, /proc/<pid>/attr and ns of every process inside",
    advice="kill the process; use jaula exec, which gives the container's privileges, not nsenter",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row."""
    allowed = mask(container.capabilities.bounding)
    filtered = container.linux.seccomp is not None
    thread_count, wrong = 0, []
    for pid in pids_inside(container):
        label = unexpected_label(container, pid)
        for status in statuses(container, pid):
            thread_count += 1
            if thread_count > MAX_THREADS:
                raise ValueError(f"more than {MAX_THREADS} threads in the container")
            privileges = excess_privileges(
                status, allowed, filtered, container.process.no_new_privileges
            )
            if privileges or label:
                excess = ", ".join(filter(None, (privileges, label)))
                wrong.append(f"{_value(status, 'Name')} {pid}: {excess}")
    by = None
    if wrong and container.inspect.get("ExecIDs"):
        by = "exec --privileged"
    effective = "; ".join(dict.fromkeys(wrong)) or f"{thread_count} other threads, none has more"
    requested = "no more than the container has" + (f" ({by})" if by else "")
    verdict = verdict_of(not wrong or by is not None, by)
    yield Result("processes", "capabilities", requested, effective,
              f"{container.proc_root}/*/task/*/status", verdict)  # fmt: skip


def pids_inside(container: AuditedContainer) -> list[int]:
    """Return the pids of the container's other processes."""
    own = {kind: container.link(f"ns/{kind}") for kind in ("mnt", "pid", "user")}
    host = os.readlink(f"{container.proc_root}/self/ns/user")
    pids = []
    for pid, (mnt_ns, pid_ns, user_ns) in container.snapshot.processes.items():
        if mnt_ns == own["mnt"] or (
            pid_ns == own["pid"] and container.own_pids and user_ns in (own["user"], host)
        ):
            pids.append(pid)
    return pids


def statuses(container: AuditedContainer, pid: int) -> Iterator[str]:
    """Yield the status of each thread; exited ones and the init process are left out."""
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
    """Return a description of a label that is not the container's; empty if expected.

    A program may change its SELinux type and AppArmor profile if the policy permits it. Its level,
    which separates containers, stays the same, and no process becomes unconfined.
    """
    level = (container.process.selinux_label or "").split(":", 3)[3:]
    profile = container.process.apparmor_profile or "unconfined"
    try:
        if detect.selinux() and level:
            label = _text(f"{container.proc_root}/{pid}/attr/current")
            if label.split(":", 3)[3:] != level:
                return f"runs as {label}"
        if detect.apparmor() and profile != "unconfined":
            label = _text(f"{container.proc_root}/{pid}/attr/apparmor/current")
            if parse_current(label)[0] == "unconfined":
                return "runs unconfined"
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has exited
    return ""


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\0\n")


def excess_privileges(status: str, allowed: int, filtered: bool, no_new_privileges: bool) -> str:
    """Return in words what a thread has beyond the container; empty if nothing."""
    descriptions = []
    extra = 0
    for value in parse_status_masks(status).values():
        extra |= value & ~allowed
    if extra:
        names = decode(extra)
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        descriptions.append(f"has {listed}")
    if filtered and _value(status, "Seccomp") == "0":
        descriptions.append("has no filter")
    if no_new_privileges and _value(status, "NoNewPrivs") == "0":
        descriptions.append("may gain privileges")
    return ", ".join(descriptions)


def _value(status: str, key: str) -> str:
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    raise KeyError(key)
