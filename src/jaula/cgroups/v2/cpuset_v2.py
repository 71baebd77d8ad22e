"""The v2 ``cpuset`` controller. A new cgroup has empty lists, which mean the parent's.

Source: kernel ``admin-guide/cgroup-v2.rst`` "Cpuset". The kernel accepts a list that the parent
does not grant, without an error or effect. ``.effective`` is therefore reported with the limits.
"""

from __future__ import annotations

from jaula.cgroups.cgroup_driver import CpusetStats
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step
from jaula.spec import cpuset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources


class Cpuset:
    """The v2 ``cpuset`` controller."""

    name = "cpuset"
    section = "cpu"
    limits = ("cpuset.cpus", "cpuset.cpus.effective", "cpuset.mems", "cpuset.mems.effective")

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        cpu = resources.cpu
        if cpu is None:
            return ()
        lists = (("cpuset.cpus", cpu.cpus), ("cpuset.mems", cpu.mems))
        return tuple(FileWrite(name, value) for name, value in lists if value)


def stats(read: Reader) -> CpusetStats:
    """Return the effective lists."""
    return CpusetStats(
        cpus=_numbers(read("cpuset.cpus.effective")),
        mems=_numbers(read("cpuset.mems.effective")),
    )


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(sorted(cpuset.parse(text or "", empty_elements=True)))
