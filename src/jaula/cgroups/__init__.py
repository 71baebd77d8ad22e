"""Cgroups: limits, figures, pause and removal of a container's processes, on v1 and v2.

:func:`detect` looks at the host and gives the driver; what it can do is in
:mod:`jaula.cgroups.protocol`. Knows no containers, only paths and OCI resources.
"""

from __future__ import annotations

from jaula.cgroups import hierarchies
from jaula.cgroups.entry import enter
from jaula.cgroups.protocol import Cgroup, CgroupDriver, Stats
from jaula.cgroups.v1.driver import Driver as V1Driver
from jaula.cgroups.v2.driver import Driver as V2Driver
from jaula.errors import Unsupported

__all__ = ["Cgroup", "CgroupDriver", "Stats", "detect", "driver", "enter"]


def detect() -> CgroupDriver:
    """The driver for this host. Raises ``Unsupported`` where no cgroups are mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        return driver(hierarchies.parse(mountinfo.read()))


def driver(found: hierarchies.Hierarchies) -> CgroupDriver:
    """v1 wherever it has a controller (hybrid hosts), else v2."""
    if found.legacy:
        return V1Driver(found.legacy)
    if found.unified is not None:
        return V2Driver(found.unified)
    raise Unsupported(
        "no cgroup hierarchy is mounted", hint="mount cgroup2 on /sys/fs/cgroup and try again"
    )
