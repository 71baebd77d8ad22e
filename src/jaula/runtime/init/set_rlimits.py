"""Limits that the parent sets on a process from outside, with the host's privileges.

Follows runtime-spec config.md, "process.rlimits", "process.oomScoreAdj", "process.scheduler" and
"process.ioPriority"; prlimit(2), sched(7), ioprio_set(2). :mod:`jaula.runtime.validation` refuses
values that no kernel accepts before this runs.
"""

from __future__ import annotations

import resource

from jaula.errors import RuntimeFailure
from jaula.kernel import sched
from jaula.spec import cpuset
from jaula.spec.runtime_spec import IOPriority, Process, Scheduler

_RLIMITS = """
CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
RLIMITS: dict[str, int] = {f"RLIMIT_{name}": n for n, name in enumerate(_RLIMITS.split())}
"""Numbers of include/uapi/asm-generic/resource.h; the resource module lacks LOCKS."""


def set_limits(pid: int, process: Process) -> None:
    """Set rlimits, oom_score_adj, scheduler and ioPriority of a process that waits to execute.

    :raises RuntimeFailure: when a limit is unknown or the kernel refuses it.
    """
    for limit in process.rlimits:
        number = RLIMITS.get(limit.type)
        if number is None:
            raise RuntimeFailure(f"unknown resource limit {limit.type!r}")
        try:
            resource.prlimit(pid, number, (_rlim_value(limit.soft), _rlim_value(limit.hard)))
        except (ValueError, OSError) as error:
            raise RuntimeFailure(
                f"{limit.type.lower()} soft {limit.soft} hard {limit.hard}: {error}",
                hint="the engine may not raise its own hard limit",
            ) from None
    adjustment = process.oom_score_adj
    if adjustment is not None:
        try:
            with open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:
                file.write(b"%d" % adjustment)
        except PermissionError:
            raise RuntimeFailure(
                f"oom_score_adj {adjustment}: permission denied",
                hint="lowering it needs CAP_SYS_RESOURCE, which this engine lacks",
            ) from None
    if process.scheduler is not None:
        _set_scheduler(pid, process.scheduler)
    if process.io_priority is not None:
        _set_io_priority(pid, process.io_priority)


def cpu_list(text: str) -> frozenset[int]:
    """Return the CPUs of ``process.execCPUAffinity``; empty if none is requested.

    :raises InvalidRequest: when the list is malformed.
    """
    return cpuset.parse(text, field="process.execCPUAffinity") if text else frozenset()


def _set_scheduler(pid: int, scheduler: Scheduler) -> None:
    policy = sched.POLICIES.get(scheduler.policy)
    if policy is None:
        raise RuntimeFailure(f"process.scheduler.policy: unknown policy {scheduler.policy!r}")
    flags = 0
    for flag in scheduler.flags:
        if flag not in sched.SCHED_FLAGS:
            raise RuntimeFailure(f"process.scheduler.flags: unknown flag {flag!r}")
        flags |= sched.SCHED_FLAGS[flag]
    attributes = sched.sched_attr(
        sched_policy=policy,
        sched_flags=flags,
        sched_nice=scheduler.nice,
        sched_priority=scheduler.priority,
        sched_runtime=scheduler.runtime,
        sched_deadline=scheduler.deadline,
        sched_period=scheduler.period,
    )
    try:
        sched.sched_setattr(pid, attributes)
    except OSError as error:
        raise RuntimeFailure(
            f"process.scheduler: {scheduler.policy}: {error.strerror}",
            hint="realtime and deadline policies need CAP_SYS_NICE and, where the kernel groups "
            "realtime tasks, a share for the cgroup",
        ) from None


def _set_io_priority(pid: int, io_priority: IOPriority) -> None:
    class_ = sched.IOPRIO_CLASSES.get(io_priority.class_)
    if class_ is None:
        raise RuntimeFailure(f"process.ioPriority.class: unknown class {io_priority.class_!r}")
    try:
        sched.ioprio_set(pid, class_, io_priority.priority)
    except OSError:
        raise RuntimeFailure(
            f"process.ioPriority: {io_priority.class_} priority {io_priority.priority}: ",
            hint="class IOPRIO_CLASS_RT needs CAP_SYS_ADMIN or CAP_SYS_NICE",
        ) from None


def _rlim_value(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 1 << 63 else value
