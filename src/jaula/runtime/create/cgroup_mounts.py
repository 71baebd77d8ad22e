"""The cgroup v1 hierarchies that the host has mounted, for a container's own cgroup mount."""

from __future__ import annotations

from collections.abc import Collection

_GENERIC = frozenset({"rw", "ro", "xattr", "noprefix", "clone_children", "favordynmods"})


def v1_hierarchies(
    places: Collection[str], mountinfo: str = "/proc/self/mountinfo"
) -> tuple[tuple[str, str], ...]:
    """(name of the mount point, the options that select the hierarchy), sorted; empty on v2 hosts.

    ``places`` are the directories of the container's cgroup. A hierarchy in which it has none is
    left out: the container would see the host's whole tree there, read-only but whole.

    Source: proc_pid_mountinfo(5): after the separator `` - `` come type, source and super options.
    """
    found: dict[str, str] = {}
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, separator, tail = line.rstrip("\n").partition(" - ")
            if not separator or not tail.startswith("cgroup "):
                continue
            point = head.split(" ")[4]
            options = [x for x in tail.split(" ")[2].split(",") if x not in _GENERIC]
            selecting = [x for x in options if not x.startswith("release_agent=")]
            if selecting and any(place.startswith(f"{point}/") for place in places):
                found[point.rsplit("/", 1)[-1]] = ",".join(selecting)
    return tuple(sorted(found.items()))


def container_directories(
    places: Collection[str], mountinfo: str = "/proc/self/mountinfo"
) -> tuple[tuple[str, str], ...]:
    """(name below the container's cgroup mount, host directory) of a container's cgroup, sorted.

    On a unified host there is one, and its name is empty.
    """
    v1: dict[str, str] = {}
    v2: dict[str, str] = {}
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, separator, tail = line.rstrip("\n").partition(" - ")
            if not separator or not tail.startswith(("cgroup ", "cgroup2 ")):
                continue
            point = head.split(" ")[4]
            for place in places:
                if place.startswith(f"{point}/"):
                    found = v1 if tail.startswith("cgroup ") else v2
                    found[point.rsplit("/", 1)[-1]] = place
    if v1:
        return tuple(sorted({**v2, **v1}.items()))
    return tuple(("", place) for place in v2.values())


def own_places(
    cgroup: str = "/proc/self/cgroup", mountinfo: str = "/proc/self/mountinfo"
) -> tuple[str, ...]:
    """Directories of our own cgroup: those of a container that has none of its own, sorted.

    A cgroup outside of what is mounted is left out. Each ends in a slash where it is a whole tree.
    """
    with open(cgroup, encoding="utf-8", errors="surrogateescape") as file:
        own = [line.rstrip("\n").split(":", 2)[1:] for line in file]
    found: set[str] = set()
    with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.rstrip("\n").partition(" - ")
            root, point = head.split(" ")[3:5]
            kind, _, options = tail.partition(" ")
            if kind not in ("cgroup", "cgroup2"):
                continue
            selecting = set(options.split(" ")[-1].split(","))
            for controllers, path in own:
                mine = set(controllers.split(",")) if controllers else set()
                if (kind == "cgroup2") != (not mine) or not mine <= selecting:
                    continue
                if path == root or path.startswith(f"{root.rstrip('/')}/"):
                    found.add(f"{point}/{path[len(root.rstrip('/')) :].lstrip('/')}")
    return tuple(sorted(found))
