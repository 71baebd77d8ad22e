"""The processes of a container, by the files of its cgroup."""

from __future__ import annotations

import os
from collections.abc import Iterator

from jaula.cgroups import hierarchies
from jaula.features.record.recorded_cgroup import Cgroup
from jaula.kernel import mountinfo

_MAX_CGROUPS = 1024
_MAX_BYTES = 1 << 20  # of one cgroup.procs


def directory(cgroup: Cgroup) -> str:
    """Return the directory of a cgroup, '' if its hierarchy is not mounted."""
    mounts = hierarchies.find(mountinfo.read())
    mount = mounts.legacy.get(cgroup.controller) if cgroup.controller else mounts.unified
    return mount + cgroup.path if mount else ""


def pids(path: str) -> list[int]:
    """Return the processes in a cgroup directory and below it; none if it has gone."""
    return [int(word) for text in _texts(path) for word in text.split() if word.isdigit()]


def _texts(path: str) -> Iterator[bytes]:
    for number, (parent, _, names) in enumerate(os.walk(path)):
        if number >= _MAX_CGROUPS:
            return
        if "cgroup.procs" in names:
            try:
                with open(f"{parent}/cgroup.procs", "rb") as file:
                    yield file.read(_MAX_BYTES)
            except OSError:
                continue  # the cgroup was removed, or is threaded


def of_namespace(link: str) -> list[int]:
    """Return the processes of a pid namespace (``pid:[4026532000]``) that can be read."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.readlink(f"/proc/{name}/ns/pid") == link:
                    found.append(int(name))
            except OSError:
                continue  # it has exited, or is of another user
    return found
