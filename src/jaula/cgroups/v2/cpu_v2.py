"""The v2 ``cpu`` controller: weight and bandwidth.

Source: OCI config-linux.md "CPU"; kernel ``admin-guide/cgroup-v2.rst`` "CPU". Times are in
microseconds.
"""

from __future__ import annotations

from math import log2

from jaula.cgroups import cpu_burst
from jaula.cgroups.cgroup_driver import CpuStats
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, WriteWarning, flat_keyed
from jaula.cgroups.v2 import pressure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

_MIN_SHARES, _MAX_SHARES = 2, 262144
_DEFAULT_PERIOD = 100_000  # microseconds
_NO_IDLE = "this kernel has no idle cgroups, cpu.idle is not in effect"
_NO_RT = "real-time limits do not exist in cgroup v2, they are not in effect"


class Cpu:
    """The v2 ``cpu`` controller."""

    name = "cpu"
    section = "cpu"
    limits = ("cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        cpu = resources.cpu
        if cpu is None:
            return ()
        steps: list[Step] = []
        if cpu.idle is not None:
            steps.append(FileWrite("cpu.idle", str(cpu.idle), missing=_NO_IDLE))
        idle = current("cpu.idle") == "1" if cpu.idle is None else cpu.idle == 1
        if cpu.shares and not idle:  # the kernel rejects a write to an idle cgroup's weight
            steps.append(FileWrite("cpu.weight", str(weight(cpu.shares))))
        burst = cpu_burst.step(cpu.burst, "cpu.max.burst", current)
        steps += burst.before
        if cpu.quota or cpu.period:
            steps.append(FileWrite("cpu.max", _bandwidth(cpu.quota, cpu.period, current)))
        steps += burst.after
        if cpu.realtime_period or cpu.realtime_runtime:
            steps.append(WriteWarning(_NO_RT))
        return tuple(steps)


def weight(shares: int) -> int:
    """Convert v1 shares (2 to 262144, default 1024) to a v2 weight (1 to 10000, default 100).

    The curve maps both ends and the default: a quadratic in the logarithm through these three
    points, which runtimes use since 2025. The earlier straight line gave 39 for the default.
    """
    shares = min(max(shares, _MIN_SHARES), _MAX_SHARES)
    if shares == _MAX_SHARES:
        return 10_000
    bits = log2(shares)
    exponent = (bits * bits + 125 * bits) / 612 - 7 / 34
    return min(max(_ceiling(10**exponent), 1), 10_000)


def _ceiling(value: float) -> int:
    nearest = round(value)
    return nearest if abs(value - nearest) < 1e-6 else int(value) + 1


def _bandwidth(quota: int | None, period: int | None, current: Reader) -> str:
    """Return ``quota period``; a value that is not set is taken from the current one."""
    current_values = (current("cpu.max") or f"max {_DEFAULT_PERIOD}").split()
    first = current_values[0] if not quota else "max" if quota < 0 else str(quota)
    return f"{first} {period or current_values[-1]}"


def stats(read: Reader, *, detailed: bool = False) -> CpuStats:
    """Return CPU time used and throttled; the files are in microseconds."""
    stat = flat_keyed(read("cpu.stat"))
    return CpuStats(
        usage=stat.get("usage_usec", 0) * 1000,
        user=stat.get("user_usec", 0) * 1000,
        system=stat.get("system_usec", 0) * 1000,
        periods=stat.get("nr_periods", 0),
        throttled_periods=stat.get("nr_throttled", 0),
        throttled=stat.get("throttled_usec", 0) * 1000,
        pressure=pressure.stats(read, "cpu") if detailed else None,
    )
