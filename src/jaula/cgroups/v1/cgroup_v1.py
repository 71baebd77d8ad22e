"""A v1 cgroup: the same path in every hierarchy, as one object.

:data:`CONTROLLERS` is the table of controllers; each decides its writes in its own module.
"""

from __future__ import annotations

import os
import time
from typing import Self

import msgspec

from jaula.cgroups import cgroup_directory, cgroup_files, pids
from jaula.cgroups.cgroup_driver import CpusetStats, CpuStats, Stats, Usage
from jaula.cgroups.cgroup_files import Reader, Step, is_removed, perform
from jaula.cgroups.controller import Controller, requested
from jaula.cgroups.rdma import Rdma
from jaula.cgroups.v1 import blkio, cpu_v1, cpuset_v1, freezer_v1, hugetlb_v1, memory_v1
from jaula.cgroups.v1.devices_v1 import Devices
from jaula.cgroups.v1.net_cls_v1 import NetCls, NetPrio
from jaula.errors import InvalidRequest, NotFound, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaula.spec.runtime_spec import Resources

CONTROLLERS: dict[str, Controller] = {
    controller.name: controller
    for controller in (
        cpu_v1.Cpu(),
        cpu_v1.Cpuacct(),
        cpuset_v1.Cpuset(),
        memory_v1.Memory(),
        Devices(),
        freezer_v1.Freezer(),
        blkio.Blkio(),
        pids.Pids(),
        hugetlb_v1.Hugetlb(),
        Rdma(),
        NetCls(),
        NetPrio(),
    )
}

FREEZE_TIMEOUT = 2.0  # seconds
_USAGE = ("cpu", "cpuacct", "memory", "pids", "blkio")
_OF_PIDS = ("pids", "freezer", "memory", *CONTROLLERS)
"""The hierarchies whose list of processes is read, the first one that there is."""


class Hierarchy(msgspec.Struct, frozen=True):
    """One mounted hierarchy; ``root`` is a descriptor of the mount point, owned by the driver."""

    controllers: tuple[str, ...]
    mount: str
    root: int


class V1Cgroup:
    """Implementation of :class:`jaula.cgroups.cgroup_driver.Cgroup`."""

    def __init__(self, path: str, relative: str, hierarchies: tuple[Hierarchy, ...]) -> None:
        self.path = path
        self._relative = relative
        self._hierarchies = hierarchies
        self._directories: dict[str, int] = {}

    def plan(self, resources: Resources) -> list[tuple[str, tuple[Step, ...]]]:
        """Return the writes by controller; raise as :meth:`apply` does, before the first write."""
        if resources.unified:
            raise InvalidRequest("unified resources need cgroup v2; this host has v1")
        plans = [
            (name, controller.decide(resources, self.reader(name)))
            for name, controller in CONTROLLERS.items()
            if requested(controller, resources)
        ]
        for name, steps in plans:
            if steps and self._directory(name) is None:
                raise Unsupported(
                    f"cannot limit {name} of cgroup {self.path}: the host has no {name} controller",
                    hint="run without that limit, or mount the controller",
                )
        return plans

    def apply(self, resources: Resources) -> tuple[str, ...]:
        warnings: list[str] = []
        for name, steps in self.plan(resources):
            if steps:
                warnings += perform(self._required(name), self.path, steps)
        return tuple(warnings)

    def reader(self, controller: str) -> Reader:
        """Return a reader of one controller's files."""
        return cgroup_files.reader(self._directory(controller))

    def add(self, pid: int) -> None:
        for hierarchy in self._hierarchies:
            directory = self._required(hierarchy.controllers[0])
            cgroup_directory.add(directory, self.path, pid, hint=f"refused in {hierarchy.mount}")

    def open_attach_fds(self, *, cloned: bool = False) -> tuple[int, ...]:
        opened: list[int] = []
        try:
            for hierarchy in self._hierarchies:
                if cloned and not hierarchy.controllers[0]:
                    continue
                directory = self._required(hierarchy.controllers[0])
                # The v2 tree of a hybrid host (name "") has no per-thread file.
                file = "tasks" if hierarchy.controllers[0] else "cgroup.procs"
                opened.append(os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory))
        except BaseException:
            for descriptor in opened:
                os.close(descriptor)
            raise
        return tuple(opened)

    def release_pause_process(self) -> None:
        """Do nothing: an empty cgroup stays."""

    def directory_fd(self) -> int | None:
        return self._directory("")  # the v2 tree of a hybrid host

    def stats(self, *, detailed: bool = False) -> Stats:
        read_cpuacct, read = self.reader("cpuacct"), self.reader("memory")
        times = cpu_v1.usage(read_cpuacct)
        throttling = cpu_v1.throttling(self.reader("cpu"))
        by_cpu = cpu_v1.by_cpu(read_cpuacct) if detailed else (cpu_v1.totals(read_cpuacct), (), ())
        return Stats(
            cpu=CpuStats(*times, *throttling, *by_cpu),
            memory=memory_v1.stats(read, detailed=detailed),
            pids=pids.stats(self.reader("pids")),
            blkio=blkio.stats(self.reader("blkio"), detailed=detailed),
            oom_kills=memory_v1.oom_kills(read),
            hugetlb=hugetlb_v1.stats(self.reader("hugetlb")) if detailed else {},
            cpuset=cpuset_v1.stats(self.reader("cpuset")) if detailed else CpusetStats(),
        )

    def pids(self) -> tuple[int, ...]:
        return tuple(sorted(self._pids()))

    def freeze(self, *, wait: bool = True) -> None:
        directory = self._required("freezer")
        if wait:
            freezer_v1.freeze(directory, self.path, FREEZE_TIMEOUT)
        else:
            freezer_v1.begin(directory)

    def thaw(self) -> None:
        freezer_v1.thaw(self._required("freezer"))

    def frozen(self) -> bool:
        directory = self._directory("freezer")
        return directory is not None and freezer_v1.frozen(directory)

    def kill(self) -> None:
        """Send SIGKILL to every process; thaw frozen child cgroups so that theirs exit too."""
        cgroup_directory.kill(self.path, self._pids, self._freeze_for_kill, self._thaw_all)

    def destroy(self, timeout: float = 2.0) -> None:
        deadline = time.monotonic() + timeout
        for hierarchy in self._hierarchies:
            cgroup_directory.remove(hierarchy.root, self._relative, deadline)
        self.close()

    def oom_kills(self) -> int:
        return memory_v1.oom_kills(self.reader("memory"))

    def is_oom(self, kills: int) -> bool:
        return True

    def peak_memory(self) -> int:
        return cgroup_files.number(self.reader("memory")("memory.max_usage_in_bytes"))

    def oom_fd(self) -> int | None:
        directory = self._directory("memory")
        return None if directory is None else memory_v1.subscribe_oom(directory)

    def limits(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for name, controller in CONTROLLERS.items():
            read = self.reader(name)
            for file in controller.limits:
                if (text := read(file)) is not None:
                    texts[file] = text
        return texts

    def locations(self) -> dict[str, str]:
        return {
            name: f"{hierarchy.mount}/{self._relative}"
            for hierarchy in self._hierarchies
            for name in hierarchy.controllers
        }

    def close(self) -> None:
        for directory in set(self._directories.values()):
            os.close(directory)
        self._directories.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _directory(self, controller: str) -> int | None:
        """Return the directory of a controller, opened once; None if it does not exist."""
        directory = self._directories.get(controller)
        if directory is not None:
            return directory
        for hierarchy in self._hierarchies:
            if controller in hierarchy.controllers:
                try:
                    directory = os.open(
                        self._relative, cgroup_directory.DIRECTORY, dir_fd=hierarchy.root
                    )
                except FileNotFoundError:
                    return None
                self._directories.update(dict.fromkeys(hierarchy.controllers, directory))
                return directory
        return None

    def _required(self, controller: str) -> int:
        directory = self._directory(controller)
        if directory is None:
            raise NotFound(f"cgroup {self.path} has no {controller} directory")
        return directory

    def _pids(self) -> set[int]:
        for name in _OF_PIDS:
            directory = self._directory(name)
            if directory is not None:
                return cgroup_directory.pids(directory)
        return set()  # removed concurrently

    def _thaw_all(self) -> None:
        directory = self._directory("freezer")
        for level in cgroup_directory.walk(directory) if directory is not None else ():
            try:
                freezer_v1.thaw(level)
            except OSError as error:
                if not is_removed(error):
                    raise

    def _freeze_for_kill(self) -> bool:
        directory = self._directory("freezer")
        if directory is None:
            return False
        try:
            freezer_v1.freeze(directory, self.path, 0.1)
        except Unavailable:
            return False
        except OSError as error:
            if not is_removed(error):
                raise
            return False
        return True


def usage(roots: Mapping[str, int], relative: str) -> Usage:
    """Return the usage of a cgroup from as few files as possible.

    ``roots`` are descriptors of the mount points by controller. The directories of the cgroup are
    not opened. One that does not exist has no processes.
    """
    prefix = f"{relative}/"
    read = {name: cgroup_files.reader(roots.get(name), prefix) for name in _USAGE}
    stats = Stats(
        cpu=CpuStats(*cpu_v1.usage(read["cpuacct"]), *cpu_v1.throttling(read["cpu"])),
        memory=memory_v1.usage(read["memory"]),
        pids=pids.stats(read["pids"]),
        blkio=blkio.stats(read["blkio"]),
        oom_kills=memory_v1.oom_kills(read["memory"]),
    )
    return Usage(stats, _pids(roots, relative))


def _pids(roots: Mapping[str, int], relative: str) -> tuple[int, ...]:
    """Return the processes of a cgroup and those below, sorted."""
    root = next((roots[name] for name in _OF_PIDS if name in roots), None)
    if root is None:
        return ()
    try:
        if os.stat(relative, dir_fd=root).st_nlink <= 2:  # no child: see the module directory
            return tuple(
                sorted(cgroup_files.pids(cgroup_files.read(root, f"{relative}/cgroup.procs")))
            )
        directory = os.open(relative, cgroup_directory.DIRECTORY, dir_fd=root)
    except OSError as error:
        if is_removed(error):
            return ()
        raise
    try:
        return tuple(sorted(cgroup_directory.pids(directory)))
    finally:
        os.close(directory)
