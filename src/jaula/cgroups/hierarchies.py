"""The mount points of the host's cgroup trees. Pure.

Source: cgroups(7). Controllers may have a hierarchy each, or share one (``cpu,cpuacct``). A hybrid
host has a v2 tree beside v1 ones.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from jaula.kernel.mountinfo import MountInfo

CONTROLLERS = frozenset(
    {
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "hugetlb",
        "rdma",
        "net_cls",
        "net_prio",
    }
)
"""The v1 controllers that a container's limits, figures, pause and removal need."""

SYSTEMD = "name=systemd"
"""The option of the v1 hierarchy without controller in which systemd keeps its units."""


class Hierarchies(msgspec.Struct, frozen=True):
    """``legacy`` maps a v1 controller to its mount point; ``unified`` is the v2 tree's, if any.

    ``named`` is the mount point of systemd's hierarchy without controllers on hosts with v1.
    """

    legacy: dict[str, str] = {}
    unified: str | None = None
    named: str | None = None


def find(mounts: Iterable[MountInfo]) -> Hierarchies:
    """Return the first mount of each controller, of the v2 tree and of systemd's hierarchy."""
    legacy: dict[str, str] = {}
    unified: str | None = None
    named: str | None = None
    for mount in mounts:
        if mount.fstype == "cgroup2" and unified is None:
            unified = mount.target
        elif mount.fstype == "cgroup":
            for option in mount.super_options:
                if option == SYSTEMD and named is None:
                    named = mount.target
                if option in CONTROLLERS:
                    legacy.setdefault(option, mount.target)
    return Hierarchies(legacy, unified, named)
