"""The v1 ``cpuacct`` controller: CPU time used. It limits nothing.

Source: kernel ``admin-guide/cgroup-v1/cpuacct.rst``. The files are in nanoseconds.
"""

from __future__ import annotations

from jaula.cgroups.file_writes import Step
from jaula.cgroups.files import Reader, number
from jaula.spec.runtime import Resources


class Cpuacct:
    name = "cpuacct"
    limits: tuple[str, ...] = ()

    def decide(self, resources: Resources, current: Reader) -> tuple[Step, ...]:
        return ()


def totals(read: Reader) -> tuple[int, ...]:
    """Nanoseconds of each CPU, in their order."""
    return tuple(int(word) for word in (read("cpuacct.usage_percpu") or "").split())


def by_cpu(read: Reader) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(total, user, system) nanoseconds of each CPU, in their order.

    ``cpuacct.usage_all`` is a table with the head ``cpu user system``.
    """
    rows = [line.split() for line in (read("cpuacct.usage_all") or "").splitlines()[1:]]
    numbers = [row for row in rows if len(row) == 3 and all(word.isdigit() for word in row)]
    return (
        totals(read),
        tuple(int(row[1]) for row in numbers),
        tuple(int(row[2]) for row in numbers),
    )


def usage(read: Reader) -> tuple[int, int, int]:
    """(total, user, system) nanoseconds."""
    return (
        number(read("cpuacct.usage")),
        number(read("cpuacct.usage_user")),
        number(read("cpuacct.usage_sys")),
    )
