"""The cgroup hierarchies of the machine, from the kernel's own tables.

Facts about cgroups(7): a directory below /sys/fs/cgroup does not prove a hierarchy, and a line in
/proc/PID/cgroup does not prove a mount: a v1 hierarchy persists without a mount while it has a
cgroup.
"""

from __future__ import annotations

from jaula.kernel import mountinfo

_LIMITING = frozenset(
    {
        *("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"),
        *("hugetlb", "rdma", "net_cls", "net_prio", "name=systemd"),
    }
)
"""Without perf_event, which only counts: a container may stay in the cgroup of podman's monitor."""


def mounted_v1() -> frozenset[str]:
    """Return the controllers, and names such as ``name=systemd``, of the mounted v1 hierarchies."""
    options: set[str] = set()
    for mount in mountinfo.read():
        if mount.fstype == "cgroup":
            options.update(mount.super_options)
    return frozenset(options)


def limiting(cgroups: str) -> list[str]:
    """Return the lines of a /proc/PID/cgroup whose hierarchy limits or names a container.

    On a host with v1 the v2 hierarchy limits nothing.
    """
    lines = cgroups.splitlines()
    if len(lines) == 1:
        return lines
    names = mounted_v1() & _LIMITING
    return [line for line in lines if names & set(line.split(":", 2)[1].split(","))]
