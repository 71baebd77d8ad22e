"""The cgroup driver of a worker: one, since a driver keeps a descriptor of each hierarchy."""

from __future__ import annotations

import functools

from jaula import cgroups
from jaula.cgroups.cgroup_driver import CgroupDriver


@functools.cache
def cgroup_driver() -> CgroupDriver:
    """Return the driver of this machine."""
    return cgroups.detect()
