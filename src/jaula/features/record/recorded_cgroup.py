"""The cgroup of a container, as the recorder needs it: the hierarchy and the id.

Source: cgroups(7), /proc/PID/cgroup. On v1 each controller has a hierarchy; any one that the
container has a cgroup in identifies its processes. The id of a cgroup is the inode of its
directory (kernel/cgroup: ``kernfs_node.id``).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from jaula.cgroups import hierarchies
from jaula.errors import Conflict, Unsupported
from jaula.kernel import mountinfo

# Names of v1 controllers and their number in the eBPF programs (enum hierarchy); 0 is v2.
CONTROLLERS = {"pids": 1, "memory": 2, "devices": 3, "freezer": 4, "cpu": 5}
UNIFIED = 0


class Cgroup(NamedTuple):
    """``controller`` is empty for v2; ``path`` is below the mount point of the hierarchy."""

    hierarchy: int
    controller: str
    path: str


def select(text: str, container: str) -> Cgroup | None:
    """Return the container's cgroup in a text of /proc/PID/cgroup. Pure.

    None: the process is in no cgroup whose path has the id of the container.
    """
    unified: Cgroup | None = None
    found: dict[str, Cgroup] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if container not in path or not path.startswith("/") or "/.." in path:
            continue
        if number == "0" and not names:
            unified = Cgroup(UNIFIED, "", path)
        for name in names.split(","):
            if name in CONTROLLERS:
                found[name] = Cgroup(CONTROLLERS[name], name, path)
    for name in CONTROLLERS:
        if name in found:
            return found[name]
    return unified


def find(pid: int, container: str) -> tuple[Cgroup, int]:
    """Return the cgroup of a container and its id. ``pid`` is the container's first process.

    :raises Conflict: when the process has exited.
    :raises Unsupported: when it is not in a cgroup of the container on this host.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except OSError:
        raise Conflict(f"container {container[:12]} has exited") from None
    cgroup = select(text, container)
    if cgroup is None:
        raise Unsupported(
            f"process {pid} is in no cgroup of container {container[:12]} on this host",
            hint="run the command on the engine's host; a rootless engine without cgroups "
            "has no records",
        )
    mounts = hierarchies.find(mountinfo.read())
    mount = mounts.legacy.get(cgroup.controller) if cgroup.controller else mounts.unified
    try:
        if mount is None:
            raise FileNotFoundError
        return cgroup, os.stat(mount + cgroup.path).st_ino
    except FileNotFoundError:
        name = cgroup.controller or "v2"
        raise Unsupported(
            f"the cgroup {cgroup.path} of the container is not mounted here ({name})",
            hint="run the command on the engine's host",
        ) from None


def expected() -> Cgroup:
    """Return the hierarchy in which this host has the cgroup of a container, without a path.

    :raises Unsupported: when it has none.
    """
    mounts = hierarchies.find(mountinfo.read())
    for name, number in CONTROLLERS.items():
        if name in mounts.legacy:
            return Cgroup(number, name, "")
    if mounts.unified is None:
        raise Unsupported("this host has no cgroups, which tell the processes of a container")
    return Cgroup(UNIFIED, "", "")


def directories(pid: int, container: str) -> dict[str, str]:
    """Return the directories of a container's cgroups by controller; ``unified`` is that of v2.

    Empty: the process has exited, or is not one of the container.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except OSError:
        return {}
    mounts = hierarchies.find(mountinfo.read())
    result: dict[str, str] = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if container not in path or not path.startswith("/") or "/.." in path:
            continue
        if not names and mounts.unified is not None:
            result["unified"] = mounts.unified + path
        for name in names.split(","):
            if name in mounts.legacy:
                result[name] = mounts.legacy[name] + path
    return result
