"""The ``pids`` controller, which has the same files in both versions.

Source: kernel ``admin-guide/cgroup-v1/pids.rst`` and ``admin-guide/cgroup-v2.rst`` "PID". OCI: zero
and less mean no limit.
"""

from __future__ import annotations

from jaula.cgroups.files import FileWrite, Reader, Step, limit, number
from jaula.cgroups.protocol import PidsStats
from jaula.spec.runtime import Resources


class Pids:
    name = "pids"
    limits = ("pids.max",)

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        if resources.pids is None:
            return ()
        wanted = resources.pids.limit
        return (FileWrite("pids.max", str(wanted) if wanted > 0 else "max"),)


def stats(read: Reader) -> PidsStats:
    """Tasks now, threads included, and how many there may be."""
    return PidsStats(current=number(read("pids.current")), limit=limit(read("pids.max")))
