"""The v1 driver: a directory in each hierarchy that a container needs.

Source: kernel ``admin-guide/cgroup-v1/cgroups.rst``. The driver does not touch a hybrid host's v2
tree without controllers, nor systemd's named hierarchy, unless they are passed as ``named``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from jaula.cgroups import cgroup_directory, cgroup_files, cgroup_limits, cgroup_path
from jaula.cgroups.cgroup_driver import Usage
from jaula.cgroups.v1 import cpuset_v1
from jaula.cgroups.v1.cgroup_v1 import CONTROLLERS, Hierarchy, V1Cgroup, usage
from jaula.errors import NotAuthorized, NotFound

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_V2_NAMES = {"blkio": "io"}


class V1Driver:
    """The hierarchies of the host, each by a descriptor."""

    name = "cgroupfs"
    version = 1

    def __init__(self, mounts: dict[str, str], named: Iterable[tuple[str, str]] = ()) -> None:
        """Open the hierarchies of ``mounts`` (controller to mount point; equal ones are shared).

        ``named`` are further hierarchies without limits, (name, mount point), which a service
        manager needs.
        """
        self.hierarchies = tuple(
            Hierarchy(
                controllers=tuple(name for name in CONTROLLERS if mounts.get(name) == mount),
                mount=mount,
                root=os.open(mount, _DIRECTORY),
            )
            for mount in dict.fromkeys(mounts[name] for name in CONTROLLERS if name in mounts)
        ) + tuple(
            Hierarchy(controllers=(name,), mount=mount, root=os.open(mount, _DIRECTORY))
            for name, mount in named
        )
        self._roots = {name: h.root for h in self.hierarchies for name in h.controllers}

    def create(self, path: str) -> V1Cgroup:
        relative = cgroup_path.relative(path)
        created: list[Hierarchy] = []
        try:
            for hierarchy in self.hierarchies:
                self._make(hierarchy, relative)
                created.append(hierarchy)
        except BaseException:
            for hierarchy in created:
                os.rmdir(relative, dir_fd=hierarchy.root)
            raise
        return V1Cgroup(f"/{relative}", relative, self.hierarchies)

    def adopt(self, path: str) -> V1Cgroup:
        """Return a cgroup that the service manager created in its hierarchies, with its processes.

        Create it in the other hierarchies.

        :raises InvalidRequest: when the path is not valid.
        """
        relative = cgroup_path.relative(path)
        for hierarchy in self.hierarchies:
            if not cgroup_files.exists(hierarchy.root, relative):
                self._make(hierarchy, relative)
            elif "cpuset" in hierarchy.controllers:
                self._prepare_cpuset(hierarchy, relative)
        return V1Cgroup(f"/{relative}", relative, self.hierarchies)

    def open(self, path: str) -> V1Cgroup:
        relative = cgroup_path.relative(path)
        present = tuple(h for h in self.hierarchies if cgroup_files.exists(h.root, relative))
        if not present:
            raise NotFound(f"no such cgroup: /{relative}")
        return V1Cgroup(f"/{relative}", relative, present)

    def usage(self, path: str) -> Usage:
        return usage(self._roots, cgroup_path.relative(path))

    def controllers(self) -> frozenset[str]:
        names = {name for hierarchy in self.hierarchies for name in hierarchy.controllers}
        return frozenset(_V2_NAMES.get(name, name) for name in names if name != "cpuacct")

    def features(self) -> frozenset[str]:
        roots = {name: h.root for h in self.hierarchies for name in h.controllers}
        probes = (
            ("memory", "memory", "memory.limit_in_bytes"),
            ("swap", "memory", "memory.memsw.limit_in_bytes"),
            ("memory.reservation", "memory", "memory.soft_limit_in_bytes"),
            ("oom.control", "memory", "memory.oom_control"),
            ("cpu.shares", "cpu", "cpu.shares"),
            ("cpu.quota", "cpu", "cpu.cfs_quota_us"),
            ("cpuset", "cpuset", "cpuset.cpus"),
            ("pids", "pids", "cgroup.procs"),
            ("io.weight", "blkio", "blkio.weight"),
            ("io.weight", "blkio", "blkio.bfq.weight"),
            ("io.throttle", "blkio", "blkio.throttle.read_bps_device"),
            ("devices", "devices", "devices.deny"),
            ("freezer", "freezer", "cgroup.procs"),
        )
        return frozenset(
            feature
            for feature, controller, file in probes
            if controller in roots and cgroup_directory.has_file(roots[controller], file)
        )

    def warnings(self) -> tuple[str, ...]:
        return cgroup_limits.warnings(self.features(), self.version)

    def _make(self, hierarchy: Hierarchy, relative: str) -> None:
        try:
            os.mkdir(relative, 0o755, dir_fd=hierarchy.root)
        except FileNotFoundError:
            self._make_parents(hierarchy, relative)
            self._make(hierarchy, relative)
            return
        except FileExistsError:
            cgroup_directory.remove_leftover(hierarchy.root, relative)
            self._make(hierarchy, relative)
            return
        except PermissionError as error:
            raise NotAuthorized(
                f"cannot create cgroup /{relative} in {hierarchy.mount}: {error.strerror}",
                hint="the engine needs root",
            ) from error
        if "cpuset" in hierarchy.controllers:
            self._prepare_cpuset(hierarchy, relative)

    def _make_parents(self, hierarchy: Hierarchy, relative: str) -> None:
        for ancestor in cgroup_path.ancestors(relative):
            try:
                os.mkdir(ancestor, 0o755, dir_fd=hierarchy.root)
            except FileExistsError:
                continue
            if "cpuset" in hierarchy.controllers:
                self._prepare_cpuset(hierarchy, ancestor)

    def _prepare_cpuset(self, hierarchy: Hierarchy, relative: str) -> None:
        child = os.open(relative, _DIRECTORY, dir_fd=hierarchy.root)
        try:
            parent = os.open(os.path.dirname(relative) or ".", _DIRECTORY, dir_fd=hierarchy.root)
            try:
                if cpuset_v1.is_empty(parent) and os.path.dirname(relative):
                    # A concurrent start created the parent and has not filled it yet.
                    self._prepare_cpuset(hierarchy, os.path.dirname(relative))
                cpuset_v1.prepare(parent, child)
            finally:
                os.close(parent)
        finally:
            os.close(child)
