"""Scheduling of processes, set from outside and read back from the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.engine import PROJECT
from jaula.errors import RuntimeFailure
from jaula.kernel import process_calls, sched
from jaula.runtime.init.personality import personality_value
from jaula.runtime.init.set_rlimits import set_limits
from jaula.spec.runtime_spec import IOPriority, Personality, Process, Rlimit, Scheduler


@pytest.fixture
def pid() -> Iterator[int]:
    """Yield the pid of an idle process."""
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        yield sleeper.pid
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.mark.parametrize(
    ("scheduler", "policy", "nice"),
    [
        (Scheduler("SCHED_OTHER", nice=7), os.SCHED_OTHER, 7),
        (Scheduler("SCHED_BATCH", nice=-3), os.SCHED_BATCH, -3),
        (Scheduler("SCHED_IDLE"), os.SCHED_IDLE, None),  # the kernel keeps the niceness
    ],
)
def test_a_policy_and_its_niceness_are_set(
    pid: int, scheduler: Scheduler, policy: int, nice: int | None
) -> None:
    before = os.getpriority(os.PRIO_PROCESS, pid)
    set_limits(pid, Process("/", scheduler=scheduler))
    assert os.sched_getscheduler(pid) == policy
    assert os.getpriority(os.PRIO_PROCESS, pid) == (before if nice is None else nice)


@pytest.mark.parametrize(
    "scheduler",
    [
        Scheduler("SCHED_FIFO", priority=5, flags=("SCHED_FLAG_RESET_ON_FORK",)),
        Scheduler("SCHED_RR", priority=9),
        Scheduler(
            "SCHED_DEADLINE",
            runtime=1_000_000,
            deadline=20_000_000,
            period=40_000_000,
            flags=("SCHED_FLAG_RECLAIM",),
        ),
    ],
)
def test_real_time_policies_are_set_or_named_in_the_error(pid: int, scheduler: Scheduler) -> None:
    try:
        set_limits(pid, Process("/", scheduler=scheduler))
    except RuntimeFailure as error:  # a cgroup without a share of real time, or a CPU affinity
        refusal = str(error)
    else:
        refusal = ""
    result = sched.sched_getattr(pid)
    if refusal:
        assert refusal.startswith(f"process.scheduler: {scheduler.policy}: ")
        assert result.sched_policy == os.SCHED_OTHER
        return
    assert result.sched_policy == sched.POLICIES[scheduler.policy]
    assert result.sched_priority == scheduler.priority
    assert (result.sched_runtime, result.sched_deadline, result.sched_period) == (
        scheduler.runtime,
        scheduler.deadline,
        scheduler.period,
    )
    assert result.sched_flags == sum(sched.SCHED_FLAGS[flag] for flag in scheduler.flags)


def test_a_rejected_policy_is_named(pid: int) -> None:
    with pytest.raises(
        RuntimeFailure, match=r"^process\.scheduler: SCHED_FIFO: .*Invalid argument"
    ):
        set_limits(pid, Process("/", scheduler=Scheduler("SCHED_FIFO", priority=0)))
    with pytest.raises(RuntimeFailure, match=r"^process\.scheduler\.policy: unknown policy 'X'"):
        set_limits(pid, Process("/", scheduler=Scheduler("X")))
    with pytest.raises(RuntimeFailure, match=r"^process\.scheduler\.flags: unknown flag 'F'"):
        set_limits(pid, Process("/", scheduler=Scheduler("SCHED_OTHER", flags=("F",))))
    with pytest.raises(RuntimeFailure, match=r"^process\.ioPriority: IOPRIO_CLASS_NONE priority 1"):
        set_limits(pid, Process("/", io_priority=IOPriority("IOPRIO_CLASS_NONE", 1)))
    with pytest.raises(RuntimeFailure, match=r"^process\.ioPriority\.class: unknown class 'C'"):
        set_limits(pid, Process("/", io_priority=IOPriority("C")))


@pytest.mark.parametrize(
    ("class_", "priority"),
    [("IOPRIO_CLASS_RT", 2), ("IOPRIO_CLASS_BE", 7), ("IOPRIO_CLASS_IDLE", 0)],
)
def test_the_io_priority_is_set(pid: int, class_: str, priority: int) -> None:
    set_limits(pid, Process("/", io_priority=IOPriority(class_, priority)))
    assert sched.ioprio_get(pid) == (sched.IOPRIO_CLASSES[class_], priority)
    name = class_.removeprefix("IOPRIO_CLASS_").lower()
    reported = subprocess.run(
        ["ionice", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    assert name.replace("rt", "realtime").replace("be", "best-effort") in reported.stdout


def test_every_limit_of_the_specification_is_set(pid: int) -> None:
    set_limits(
        pid,
        Process(
            "/",
            rlimits=(Rlimit("RLIMIT_LOCKS", hard=9, soft=8), Rlimit("RLIMIT_CORE", hard=0, soft=0)),
            oom_score_adj=77,
        ),
    )
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert limits.split("Max file locks")[1].split()[:2] == ["8", "9"]
    assert limits.split("Max core file size")[1].split()[:2] == ["0", "0"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "77\n"


def test_a_personality_changes_the_machine_name() -> None:
    code = (
        "import os; from jaula.kernel import process_calls as process;"
        f"process.personality({personality_value(Personality('LINUX32'))});"
        "print(os.uname().machine, process.personality(0xFFFFFFFF))"
    )
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    reported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    machine, persona = reported.stdout.split()
    assert machine == {"x86_64": "i686", "aarch64": "armv8l"}.get(os.uname().machine, machine)
    assert int(persona) == process_calls.PER_LINUX32
