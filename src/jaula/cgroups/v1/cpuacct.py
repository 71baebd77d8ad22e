"""The v1 ``cpuacct`` controller: CPU time used. It limits nothing.

Source: kernel ``admin-guide/cgroup-v1/cpuacct.rst``. The files are in nanoseconds.
"""

from __future__ import annotations

from jaula.cgroups.files import Reader, number
from jaula.cgroups.writes import Step
from jaula.spec.runtime import Resources


class Cpuacct:
    name = "cpuacct"
    limits: tuple[str, ...] = ()

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        return ()


def usage(read: Reader) -> tuple[int, int, int]:
    """(total, user, system) nanoseconds."""
    return (
        number(read("cpuacct.usage")),
        number(read("cpuacct.usage_user")),
        number(read("cpuacct.usage_sys")),
    )
