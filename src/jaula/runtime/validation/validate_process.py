"""Validation of the section ``process``: config.md "Process"; sched(7), ioprio_set(2)."""

from __future__ import annotations

from jaula.kernel import sched
from jaula.kernel.capabilities import NAMES
from jaula.runtime.init.set_rlimits import RLIMITS
from jaula.runtime.validation.field import absolute, between, one_of, quote, refuse
from jaula.spec import cpuset
from jaula.spec.runtime_spec import Capabilities, Process, Rlimit, Scheduler, User

HIGHEST_ID = 0xFFFFFFFE  # the kernel uses the next id as 'no id'
_NAMES = frozenset(NAMES)
_REALTIME = ("SCHED_FIFO", "SCHED_RR")


def check(process: Process) -> tuple[str, ...]:
    """Validate a process; return warnings.

    :raises InvalidRequest: when a field is invalid.
    """
    if not process.cwd:
        raise refuse("process.cwd", "is missing")
    absolute("process.cwd", process.cwd)
    if not process.args:
        raise refuse("process.args", "is empty")
    if process.command_line is not None:
        raise refuse("process.commandLine", "is for Windows, process.args for Linux")
    if process.console_size is not None:
        between("process.consoleSize.height", process.console_size.height, 0, 0xFFFF)
        between("process.consoleSize.width", process.console_size.width, 0, 0xFFFF)
    _user(process.user)
    _rlimits(process.rlimits)
    if process.oom_score_adj is not None:
        between("process.oomScoreAdj", process.oom_score_adj, -1000, 1000)
    if process.io_priority is not None:
        priority = process.io_priority
        one_of("process.ioPriority.class", priority.class_, tuple(sched.IOPRIO_CLASSES))
        highest = 0 if priority.class_ == "IOPRIO_CLASS_NONE" else 7
        between("process.ioPriority.priority", priority.priority, 0, highest)
    if process.scheduler is not None:
        _scheduler(process.scheduler)
    if process.exec_cpu_affinity is not None:
        for name in ("initial", "final"):
            if text := getattr(process.exec_cpu_affinity, name):
                cpuset.parse(text, field=f"process.execCPUAffinity.{name}")
    return () if process.capabilities is None else _capabilities(process.capabilities)


def _user(user: User) -> None:
    between("process.user.uid", user.uid, 0, HIGHEST_ID)
    between("process.user.gid", user.gid, 0, HIGHEST_ID)
    for index, gid in enumerate(user.additional_gids):
        between(f"process.user.additionalGids[{index}]", gid, 0, HIGHEST_ID)
    if user.umask is not None and not 0 <= user.umask <= 0o777:
        raise refuse("process.user.umask", f"{user.umask} is not between 0 and 511 (octal 777)")


def _rlimits(limits: tuple[Rlimit, ...]) -> None:
    seen: set[str] = set()
    for index, limit in enumerate(limits):
        field = f"process.rlimits[{index}]"
        if limit.type not in RLIMITS:
            raise refuse(f"{field}.type", f"unknown resource limit {quote(limit.type)}")
        if limit.type in seen:
            raise refuse(f"{field}.type", f"{limit.type} is specified twice")
        seen.add(limit.type)
        for name, value in (("soft", limit.soft), ("hard", limit.hard)):
            if not -1 <= value < 1 << 64:
                raise refuse(f"{field}.{name}", f"{value} is not an unsigned 64-bit number")
        if limit.soft % (1 << 64) > limit.hard % (1 << 64):
            raise refuse(f"{field}.soft", f"{limit.soft} is above the hard limit {limit.hard}")


def _capabilities(sets: Capabilities) -> tuple[str, ...]:
    """Validate capability sets; return warnings.

    Unknown names are ignored with a warning: a spec may be for a newer kernel. Ambient capabilities
    that are not both permitted and inheritable are ignored silently: the kernel does not raise
    them, and the specs of common tools list them. The subset rules are those of capset(2).
    """
    warnings: list[str] = []
    for kind in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        warnings += (
            f"process.capabilities.{kind}: unknown capability {quote(name)} is ignored"
            for name in getattr(sets, kind)
            if name not in _NAMES
        )
    for kind, superset in (("effective", "permitted"), ("inheritable", "bounding")):
        for name in getattr(sets, kind):
            if name in _NAMES and name not in getattr(sets, superset):
                raise refuse(f"process.capabilities.{kind}", f"{name} is not in the set {superset}")
    return tuple(warnings)


def _scheduler(scheduler: Scheduler) -> None:
    field = "process.scheduler"
    one_of(f"{field}.policy", scheduler.policy, tuple(sched.POLICIES))
    for index, flag in enumerate(scheduler.flags):
        one_of(f"{field}.flags[{index}]", flag, tuple(sched.SCHED_FLAGS))
    if scheduler.policy in ("SCHED_OTHER", "SCHED_BATCH"):
        between(f"{field}.nice", scheduler.nice, -20, 19)
    elif scheduler.nice:
        raise refuse(f"{field}.nice", f"does not apply to {scheduler.policy}")
    if scheduler.policy in _REALTIME:
        between(f"{field}.priority", scheduler.priority, 1, 99)
    elif scheduler.priority:
        raise refuse(f"{field}.priority", f"does not apply to {scheduler.policy}")
    if scheduler.policy == "SCHED_DEADLINE":
        for name, value in (
            ("runtime", scheduler.runtime),
            ("deadline", scheduler.deadline),
            ("period", scheduler.period),
        ):
            between(f"{field}.{name}", value, 0, (1 << 63) - 1)
        if (
            not 1024
            <= scheduler.runtime
            <= scheduler.deadline
            <= (scheduler.period or scheduler.deadline)
        ):
            raise refuse(field, "1024 ns <= runtime <= deadline <= period does not hold")
    else:
        for name in ("runtime", "deadline", "period"):
            if getattr(scheduler, name):
                raise refuse(f"{field}.{name}", f"does not apply to {scheduler.policy}")
