"""Limits that are set on a process from outside, where the host's privileges are.

Follows runtime-spec config.md, "process.rlimits", "process.oomScoreAdj", "process.scheduler" and
"process.ioPriority"; prlimit(2), sched(7), ioprio_set(2). What no kernel takes is found before, by
:mod:`jaula.runtime.validation`.
"""

from __future__ import annotations

import resource

from jaula.errors import RuntimeFailure
from jaula.kernel import sched
from jaula.spec import cpuset
from jaula.spec.runtime import IOPriority, Process, Scheduler

_RLIMITS = """
CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
RLIMITS: dict[str, int] = {f"RLIMIT_{name}": n for n, name in enumerate(_RLIMITS.split())}
"""Numbers of include/uapi/asm-generic/resource.h; the resource module lacks LOCKS."""


def set_limits(pid: int, wanted: Process) -> None:
    """Rlimits, oom_score_adj, scheduler and ioPriority of a process that waits to become it."""
    for limit in wanted.rlimits:
        number = RLIMITS.get(limit.type)
        if number is None:
            raise RuntimeFailure(f"unknown resource limit {limit.type!r}")
        try:
            resource.prlimit(pid, number, (_rlim(limit.soft), _rlim(limit.hard)))
        except (ValueError, OSError) as error:
            raise RuntimeFailure(
                f"{limit.type.lower()} soft {limit.soft} hard {limit.hard}: {error}",
                hint="the engine may not raise its own hard limit",
            ) from None
    adjustment = wanted.oom_score_adj
    if adjustment is not None:
        try:
            with open(f"/proc/{pid}/oom_score_adj", "wb", buffering=0) as file:
                file.write(b"%d" % adjustment)
        except PermissionError:
            raise RuntimeFailure(
                f"oom_score_adj {adjustment}: permission denied",
                hint="lowering it needs CAP_SYS_RESOURCE, which this engine lacks",
            ) from None
    if wanted.scheduler is not None:
        _set_scheduler(pid, wanted.scheduler)
    if wanted.io_priority is not None:
        _set_io_priority(pid, wanted.io_priority)


def cpu_list(text: str) -> frozenset[int]:
    """The CPUs of ``process.execCPUAffinity``; none where nothing is asked. ``InvalidRequest``."""
    return frozenset(cpuset.parse(text, field="process.execCPUAffinity") if text else ())


def _set_scheduler(pid: int, wanted: Scheduler) -> None:
    policy = sched.POLICIES.get(wanted.policy)
    if policy is None:
        raise RuntimeFailure(f"process.scheduler.policy: unknown policy {wanted.policy!r}")
    flags = 0
    for flag in wanted.flags:
        if flag not in sched.SCHED_FLAGS:
            raise RuntimeFailure(f"process.scheduler.flags: unknown flag {flag!r}")
        flags |= sched.SCHED_FLAGS[flag]
    attributes = sched.sched_attr(
        sched_policy=policy,
        sched_flags=flags,
        sched_nice=wanted.nice,
        sched_priority=wanted.priority,
        sched_runtime=wanted.runtime,
        sched_deadline=wanted.deadline,
        sched_period=wanted.period,
    )
    try:
        sched.sched_setattr(pid, attributes)
    except OSError as error:
        raise RuntimeFailure(
            f"process.scheduler: {wanted.policy}: {error.strerror}",
            hint="realtime and deadline policies need CAP_SYS_NICE and, where the kernel groups "
            "realtime tasks, a share for the cgroup",
        ) from None


def _set_io_priority(pid: int, wanted: IOPriority) -> None:
    class_ = sched.IOPRIO_CLASSES.get(wanted.class_)
    if class_ is None:
        raise RuntimeFailure(f"process.ioPriority.class: unknown class {wanted.class_!r}")
    try:
        sched.ioprio_set(pid, class_, wanted.priority)
    except OSError as error:
        raise RuntimeFailure(
            f"process.ioPriority: {wanted.class_} priority {wanted.priority}: {error.strerror}",
            hint="class IOPRIO_CLASS_RT needs CAP_SYS_ADMIN or CAP_SYS_NICE",
        ) from None


def _rlim(value: int) -> int:
    return resource.RLIM_INFINITY if value < 0 or value >= 1 << 63 else value
