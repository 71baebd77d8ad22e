"""The v1 ``cpuset`` controller: CPUs and memory nodes.

Source: kernel ``admin-guide/cgroup-v1/cpusets.rst``. A new v1 cpuset is empty and accepts no
process until both lists are set. With ``cgroup.clone_children`` in the parent the kernel copies the
parent's lists at ``mkdir``, which saves four file accesses per container.
"""

from __future__ import annotations

from jaula.cgroups import cgroup_files
from jaula.cgroups.cgroup_driver import CpusetStats
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step
from jaula.spec import cpuset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

_LISTS = ("cpuset.cpus", "cpuset.mems")


class Cpuset:
    """The v1 ``cpuset`` controller."""

    name = "cpuset"
    section = "cpu"
    limits = _LISTS

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        cpu = resources.cpu
        if cpu is None:
            return ()
        lists = zip(_LISTS, (cpu.cpus, cpu.mems), strict=True)
        return tuple(FileWrite(name, value) for name, value in lists if value)


FLAGS = (
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)


def stats(read: Reader) -> CpusetStats:
    """Return the effective lists and the numbers in the other files, of which -1 is valid."""
    texts = {name: read(f"cpuset.{name}") for name in FLAGS}
    return CpusetStats(
        cpus=_numbers(read("cpuset.effective_cpus") or read("cpuset.cpus")),
        mems=_numbers(read("cpuset.effective_mems") or read("cpuset.mems")),
        flags={
            name: int(text) for name, text in texts.items() if text and text.lstrip("-").isdigit()
        },
    )


def is_empty(directory: int) -> bool:
    """Return whether a list is empty, so that the cpuset accepts no process."""
    return not all(cgroup_files.read(directory, name) for name in _LISTS)


def prepare(parent: int, child: int) -> None:
    """Copy empty lists of a new cpuset from its parent, and let its children inherit them."""
    for name in _LISTS:
        if not cgroup_files.read(child, name):
            cgroup_files.write(child, name, cgroup_files.read(parent, name))
    cgroup_files.write(child, "cgroup.clone_children", "1")


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(sorted(cpuset.parse(text or "", empty_elements=True)))
