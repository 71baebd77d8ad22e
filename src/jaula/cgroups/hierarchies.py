"""Where the host has its cgroup trees mounted, as ``/proc/self/mountinfo`` tells.

Source: proc_pid_mountinfo(5), cgroups(7). Pure: text in, value out. Controllers may have a
hierarchy each, or share one (``cpu,cpuacct``); a hybrid host has a v2 tree beside v1 ones.
"""

from __future__ import annotations

import msgspec

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


def parse(mountinfo: str) -> Hierarchies:
    """The first mount of each controller and of the v2 tree; other lines are passed over."""
    legacy: dict[str, str] = {}
    unified: str | None = None
    named: str | None = None
    for line in mountinfo.splitlines():
        head, separator, tail = line.partition(" - ")
        fields, super_fields = head.split(" "), tail.split(" ")
        if not separator or len(fields) < 6 or len(super_fields) < 3:
            continue
        mount_point = _unescape(fields[4])
        if super_fields[0] == "cgroup2" and unified is None:
            unified = mount_point
        elif super_fields[0] == "cgroup":
            for option in super_fields[2].split(","):
                if option == SYSTEMD and named is None:
                    named = mount_point
                if option in CONTROLLERS:
                    legacy.setdefault(option, mount_point)
    return Hierarchies(legacy, unified, named)


def _unescape(path: str) -> str:
    """Undo the octal escapes of blanks and backslash that the kernel writes."""
    if "\\" not in path:
        return path
    for code, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        path = path.replace("\\" + code, character)
    return path
