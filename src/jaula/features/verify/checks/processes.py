"""Other processes of the container: none has more privileges than requested.

Evidence: /proc/<pid>/task/<tid>/status of each thread of each process in the container's mount
namespace, or in its pid namespace with its own or the host's user namespace. A process that entered
from the host (nsenter(1)) has the capabilities of the host's root and no filter. ``exec
--privileged`` gives a process, its descendants and its session all capabilities, and excuses no
other process. The filter of each process is read as that of the init process. With labels,
/proc/<pid>/attr has the label of a process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.features.verify import seccomp_compare
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of
from jaula.kernel import ptrace
from jaula.kernel.apparmor_files import parse_current
from jaula.kernel.capabilities import parse_status_masks
from jaula.security.capability_sets import decode, mask
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
    """Yield a row for the privileges of all processes, and one for their tracers."""
    allowed = mask(container.capabilities.bounding)
    filtered = container.linux.seccomp is not None
    thread_count, wrong, excused = 0, [], []
    tracers: list[str] = []
    in_pod: list[str] = []
    filters = _Filters(container)
    pids = {process.pid for process in container.members}
    for process in container.members:
        by_exec = container.privileged_exec(process)
        other = [unexpected_label(container, process.pid), filters.excess(process.pid)]
        for status in statuses(container, process.pid):
            thread_count += 1
            if thread_count > MAX_THREADS:
                raise ValueError(f"more than {MAX_THREADS} threads in the container")
            no_new_privileges = container.process.no_new_privileges
            beyond = excess_privileges(status, allowed, filtered, no_new_privileges)
            named = f"{process.name} {process.pid}: "
            if (
                beyond
                and by_exec
                and not excess_privileges(status, -1, filtered, no_new_privileges)
            ):
                excused.append(named + beyond)
                beyond = ""
            if excess := ", ".join(filter(None, (beyond, *other))):
                wrong.append(named + excess)
            tracer = int(_value(status, "TracerPid"))
            if tracer and tracer not in pids:
                _tracer(container, tracer, named, tracers, in_pod)
    by = "exec --privileged" if excused else None
    listed = "; ".join(dict.fromkeys([*wrong, *excused]))
    effective = listed or f"{thread_count} other threads, none has more"
    requested = "no more than the container has" + (f" ({by})" if by else "")
    evidence = f"{container.proc_root}/*/task/*/status"
    yield Result("processes", "capabilities", requested, effective, evidence,
                 verdict_of(not wrong, by))  # fmt: skip
    tracer = int(container.status("TracerPid"))
    if tracer and tracer not in pids:
        _tracer(container, tracer, "init: ", tracers, in_pod)
    by = "shareProcessNamespace" if in_pod else None
    yield Result("tracers", "capabilities", f"of the pod ({by})" if by else "none from outside",
                 "; ".join(dict.fromkeys([*tracers, *in_pod])) or "none", evidence,
                 verdict_of(not tracers, by))  # fmt: skip


def _tracer(
    container: AuditedContainer, tracer: int, traced: str, outside: list[str], in_pod: list[str]
) -> None:
    """Append a tracer to the list of its kind; one of the pod may trace in a shared namespace."""
    process = container.snapshot.processes.get(tracer)
    other = container.other_of(process) if process is not None else None
    if other is None or process is None:
        outside.append(f"{traced}traced by {tracer}")
    elif process.namespaces["pid"] == container.namespaces["pid"]:
        in_pod.append(f"{traced}traced by {tracer} of container {other.pod_name}")
    else:
        outside.append(f"{traced}traced by {tracer} of container {other.pod_name}")


class _Filters:
    """Comparison of the programs that filter the processes with the container's profile."""

    def __init__(self, container: AuditedContainer) -> None:
        self._container = container
        self._known: dict[tuple[bytes, ...], str] = {}

    def excess(self, pid: int) -> str:
        """Return what the filter of a process allows beyond the profile; empty if nothing."""
        container = self._container
        profile = container.linux.seccomp
        if pid == container.pid or profile is None or not container.traceable:
            return ""  # the check of the filter reports the init process
        try:
            programs = ptrace.seccomp_filters(pid)
        except OSError:  # it exits, or another process traces it, which has its own row
            return ""
        if not programs:
            return ""  # reported by its mode
        if programs not in self._known:
            expected = container.snapshot.program(profile)
            permissive = expected not in programs and seccomp_compare.more_permissive(
                expected, programs
            )
            self._known[programs] = (
                f"filter allows {len(permissive)} calls more" if permissive else ""
            )
        return self._known[programs]


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
