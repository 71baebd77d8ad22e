"""Cgroup hierarchies that the host has mounted, for a container's own cgroup mount.

Source: cgroups(7), proc_pid_cgroup(5). Pure, but for :func:`own_places`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from jaula.kernel.mountinfo import MountInfo

_GENERIC = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "favordynmods"})


def v1_hierarchies(
    places: Collection[str], mounts: Iterable[MountInfo]
) -> tuple[tuple[str, str], ...]:
    """Return (name of the mount point, options that select the hierarchy), sorted; () on v2 hosts.

    ``places`` are the directories of the container's cgroup. A hierarchy in which it has none is
    left out: the container would see the host's whole tree there, read-only but whole.
    """
    result: dict[str, str] = {}
    for mount in mounts:
        if mount.fstype != "cgroup":
            continue
        options = [x for x in mount.super_options if x not in _GENERIC]
        selecting = [x for x in options if not x.startswith("release_agent=")]
        if selecting and any(place.startswith(f"{mount.target}/") for place in places):
            result[_name(mount)] = ",".join(selecting)
    return tuple(sorted(result.items()))


def container_directories(
    places: Collection[str], mounts: Iterable[MountInfo]
) -> tuple[tuple[str, str], ...]:
    """Return (name below the container's cgroup mount, host directory) of its cgroup, sorted.

    On a unified host there is one, and its name is empty.
    """
    v1: dict[str, str] = {}
    v2: dict[str, str] = {}
    for mount in mounts:
        if mount.fstype in ("cgroup", "cgroup2"):
            for place in places:
                if place.startswith(f"{mount.target}/"):
                    (v1 if mount.fstype == "cgroup" else v2)[_name(mount)] = place
    if v1:
        return tuple(sorted({**v2, **v1}.items()))
    return tuple(("", place) for place in v2.values())


def own_places(mounts: Iterable[MountInfo], cgroup: str = "/proc/self/cgroup") -> tuple[str, ...]:
    """Return the directories of our own cgroup, for a container without one of its own; sorted.

    A cgroup outside of what is mounted is left out. Each ends in a slash where it is a whole tree.
    """
    with open(cgroup, encoding="utf-8", errors="surrogateescape") as file:
        own = [line.rstrip("\n").split(":", 2)[1:] for line in file]
    result: set[str] = set()
    for mount in mounts:
        if mount.fstype not in ("cgroup", "cgroup2"):
            continue
        root = mount.root.rstrip("/")
        for controllers, path in own:
            mine = set(controllers.split(",")) if controllers else set()
            if (mount.fstype == "cgroup2") != (not mine) or not mine <= set(mount.super_options):
                continue
            if path == mount.root or path.startswith(f"{root}/"):
                result.add(f"{mount.target}/{path[len(root) :].lstrip('/')}")
    return tuple(sorted(result))


def _name(mount: MountInfo) -> str:
    return mount.target.rsplit("/", 1)[-1]
