"""The section ``process``: config.md "Process", "Linux Process"; sched(7), ioprio_set(2)."""

from __future__ import annotations

from jaula.kernel import sched
from jaula.kernel.capabilities import NAMES
from jaula.runtime.init.rlimits import RLIMITS
from jaula.runtime.validation.field import absolute, between, one_of, refuse, shown
from jaula.spec import cpuset
from jaula.spec.runtime import Capabilities, Process, Rlimit, Scheduler, User

HIGHEST_ID = 0xFFFFFFFE  # the id above it means 'none' to the kernel
_NAMES = frozenset(NAMES)
_REALTIME = ("SCHED_FIFO", "SCHED_RR")


def check(wanted: Process) -> tuple[str, ...]:
    """Warnings; raises ``InvalidRequest``."""
    if not wanted.cwd:
        raise refuse("process.cwd", "is missing")
    absolute("process.cwd", wanted.cwd)
    if not wanted.args:
        raise refuse("process.args", "is empty")
    if wanted.command_line is not None:
        raise refuse("process.commandLine", "is for Windows, process.args for Linux")
    if wanted.console_size is not None:
        between("process.consoleSize.height", wanted.console_size.height, 0, 0xFFFF)
        between("process.consoleSize.width", wanted.console_size.width, 0, 0xFFFF)
    _user(wanted.user)
    _rlimits(wanted.rlimits)
    if wanted.oom_score_adj is not None:
        between("process.oomScoreAdj", wanted.oom_score_adj, -1000, 1000)
    if wanted.io_priority is not None:
        priority = wanted.io_priority
        one_of("process.ioPriority.class", priority.class_, tuple(sched.IOPRIO_CLASSES))
        highest = 0 if priority.class_ == "IOPRIO_CLASS_NONE" else 7
        between("process.ioPriority.priority", priority.priority, 0, highest)
    if wanted.scheduler is not None:
        _scheduler(wanted.scheduler)
    if wanted.exec_cpu_affinity is not None:
        for name in ("initial", "final"):
            if text := getattr(wanted.exec_cpu_affinity, name):
                cpuset.parse(text, field=f"process.execCPUAffinity.{name}")
    return () if wanted.capabilities is None else _capabilities(wanted.capabilities)


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
            raise refuse(f"{field}.type", f"unknown resource limit {shown(limit.type)}")
        if limit.type in seen:
            raise refuse(f"{field}.type", f"{limit.type} is given twice")
        seen.add(limit.type)
        for name, value in (("soft", limit.soft), ("hard", limit.hard)):
            if not -1 <= value < 1 << 64:
                raise refuse(f"{field}.{name}", f"{value} is not an unsigned 64-bit number")
        if limit.soft % (1 << 64) > limit.hard % (1 << 64):
            raise refuse(f"{field}.soft", f"{limit.soft} is above the hard limit {limit.hard}")


def _capabilities(sets: Capabilities) -> tuple[str, ...]:
    """Unknown names are left out with a word, not refused: a spec may be for a newer kernel.

    Ambient ones that are not both permitted and inheritable are left out without one: the kernel
    raises no others, and the specs of common tools name them. The subsets are those of capset(2).
    """
    warnings: list[str] = []
    for kind in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        warnings += (
            f"process.capabilities.{kind}: unknown capability {shown(name)} is ignored"
            for name in getattr(sets, kind)
            if name not in _NAMES
        )
    for kind, within in (("effective", "permitted"), ("inheritable", "bounding")):
        for name in getattr(sets, kind):
            if name in _NAMES and name not in getattr(sets, within):
                raise refuse(f"process.capabilities.{kind}", f"{name} is not in the set {within}")
    return tuple(warnings)


def _scheduler(wanted: Scheduler) -> None:
    field = "process.scheduler"
    one_of(f"{field}.policy", wanted.policy, tuple(sched.POLICIES))
    for index, flag in enumerate(wanted.flags):
        one_of(f"{field}.flags[{index}]", flag, tuple(sched.SCHED_FLAGS))
    if wanted.policy in ("SCHED_OTHER", "SCHED_BATCH"):
        between(f"{field}.nice", wanted.nice, -20, 19)
    elif wanted.nice:
        raise refuse(f"{field}.nice", f"has no meaning for {wanted.policy}")
    if wanted.policy in _REALTIME:
        between(f"{field}.priority", wanted.priority, 1, 99)
    elif wanted.priority:
        raise refuse(f"{field}.priority", f"has no meaning for {wanted.policy}")
    if wanted.policy == "SCHED_DEADLINE":
        for name, value in (
            ("runtime", wanted.runtime),
            ("deadline", wanted.deadline),
            ("period", wanted.period),
        ):
            between(f"{field}.{name}", value, 0, (1 << 63) - 1)
        if not 1024 <= wanted.runtime <= wanted.deadline <= (wanted.period or wanted.deadline):
            raise refuse(field, "1024 ns <= runtime <= deadline <= period does not hold")
    else:
        for name in ("runtime", "deadline", "period"):
            if getattr(wanted, name):
                raise refuse(f"{field}.{name}", f"has no meaning for {wanted.policy}")
