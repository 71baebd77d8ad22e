"""The v2 ``cpuset`` controller. A new cgroup has empty lists, which means the parent's.

Source: kernel ``admin-guide/cgroup-v2.rst`` "Cpuset". A list that the parent does not grant is
taken without an error and has no effect: ``.effective`` tells, and is shown with the limits.
"""

from __future__ import annotations

from jaula.cgroups import cpulist
from jaula.cgroups.files import FileWrite, Reader, Step
from jaula.cgroups.protocol import CpusetStats
from jaula.spec.runtime import Resources


class Cpuset:
    name = "cpuset"
    limits = ("cpuset.cpus", "cpuset.cpus.effective", "cpuset.mems", "cpuset.mems.effective")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        cpu = resources.cpu
        if cpu is None:
            return ()
        wanted = (("cpuset.cpus", cpu.cpus), ("cpuset.mems", cpu.mems))
        return tuple(FileWrite(name, value) for name, value in wanted if value)


def stats(read: Reader) -> CpusetStats:
    """The lists in force."""
    return CpusetStats(
        cpus=cpulist.parse(read("cpuset.cpus.effective") or ""),
        mems=cpulist.parse(read("cpuset.mems.effective") or ""),
    )
