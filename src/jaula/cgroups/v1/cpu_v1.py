"""The v1 ``cpu`` and ``cpuacct`` controllers: shares, CFS quota and CPU time used.

Source: OCI config-linux.md "CPU"; kernel ``scheduler/sched-bwc.rst`` and
``admin-guide/cgroup-v1/cpuacct.rst``. Limits are in microseconds, cpuacct's files in nanoseconds.
The two are mounted together on most hosts; cpuacct has no limits.
"""

from __future__ import annotations

from jaula.cgroups import cpu_burst
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, flat_keyed, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

_NO_RT = "this kernel has no real-time group scheduling, the limit is not in effect"
_NO_IDLE = "this kernel has no idle cgroups, cpu.idle is not in effect"


class Cpu:
    """The v1 ``cpu`` controller."""

    name = "cpu"
    section = "cpu"
    limits = ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us", "cpu.idle")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        cpu = resources.cpu
        if cpu is None:
            return ()
        steps: list[Step] = []
        if cpu.idle is not None:
            steps.append(FileWrite("cpu.idle", str(cpu.idle), missing=_NO_IDLE))
        idle = current("cpu.idle") == "1" if cpu.idle is None else cpu.idle == 1
        if cpu.shares and not idle:  # the kernel rejects a write to an idle group's shares
            steps.append(FileWrite("cpu.shares", str(cpu.shares)))
        burst = cpu_burst.step(cpu.burst, "cpu.cfs_burst_us", current)
        steps += burst.before
        period = FileWrite("cpu.cfs_period_us", str(cpu.period)) if cpu.period else None
        quota = FileWrite("cpu.cfs_quota_us", str(cpu.quota)) if cpu.quota else None
        if period and quota:
            # The kernel checks each write against the other value in effect, so remove the
            # quota before changing both.
            if current("cpu.cfs_quota_us") not in ("-1", None):
                steps.append(FileWrite("cpu.cfs_quota_us", "-1"))
            steps += (period, quota)
        else:
            steps += [step for step in (period, quota) if step]
        steps += burst.after
        if cpu.realtime_period:
            steps.append(FileWrite("cpu.rt_period_us", str(cpu.realtime_period), missing=_NO_RT))
        if cpu.realtime_runtime:
            steps.append(FileWrite("cpu.rt_runtime_us", str(cpu.realtime_runtime), missing=_NO_RT))
        return tuple(steps)


def throttling(read: Reader) -> tuple[int, int, int]:
    """Return (periods, throttled periods, throttled nanoseconds)."""
    stat = flat_keyed(read("cpu.stat"))
    return (
        stat.get("nr_periods", 0),
        stat.get("nr_throttled", 0),
        stat.get("throttled_time", 0),
    )


class Cpuacct:
    """The v1 ``cpuacct`` controller."""

    name = "cpuacct"
    section = ""
    limits: tuple[str, ...] = ()

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        return ()


def totals(read: Reader) -> tuple[int, ...]:
    """Return the nanoseconds of each CPU, in order."""
    return tuple(int(word) for word in (read("cpuacct.usage_percpu") or "").split())


def by_cpu(read: Reader) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return (total, user, system) nanoseconds of each CPU, in order.

    ``cpuacct.usage_all`` is a table with the header ``cpu user system``.
    """
    rows = [line.split() for line in (read("cpuacct.usage_all") or "").splitlines()[1:]]
    numbers = [row for row in rows if len(row) == 3 and all(word.isdigit() for word in row)]
    return (
        totals(read),
        tuple(int(row[1]) for row in numbers),
        tuple(int(row[2]) for row in numbers),
    )


def usage(read: Reader) -> tuple[int, int, int]:
    """Return (total, user, system) nanoseconds, from one file where the kernel has it."""
    user = system = 0
    for line in (read("cpuacct.usage_all") or "").splitlines()[1:]:
        _, of_user, of_system = line.split()
        user, system = user + int(of_user), system + int(of_system)
    if user or system:
        return user + system, user, system
    return (
        number(read("cpuacct.usage")),
        number(read("cpuacct.usage_user")),
        number(read("cpuacct.usage_sys")),
    )
