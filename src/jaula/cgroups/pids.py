"""The ``pids`` controller, with the same files in both versions.

Source: kernel ``admin-guide/cgroup-v1/pids.rst`` and ``admin-guide/cgroup-v2.rst`` "PID". In OCI,
zero and negative values mean no limit.
"""

from __future__ import annotations

from jaula.cgroups.cgroup_driver import PidsStats
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, flat_keyed, limit, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources


class Pids:
    """The ``pids`` controller."""

    name = "pids"
    section = "pids"
    limits = ("pids.max",)

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        if resources.pids is None:
            return ()
        value = resources.pids.limit
        return (FileWrite("pids.max", str(value) if value > 0 else "max"),)


def stats(read: Reader) -> PidsStats:
    """Return the number of tasks, including threads, its limit, and the forks that it refused."""
    return PidsStats(
        current=number(read("pids.current")),
        limit=limit(read("pids.max")),
        refused=flat_keyed(read("pids.events")).get("max", 0),
    )
