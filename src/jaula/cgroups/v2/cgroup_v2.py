"""A v2 cgroup: one directory.

:data:`CONTROLLERS` is the table of controllers; each decides its writes in its own module. Devices
have no interface files on v2 and use a BPF program.
"""

from __future__ import annotations

import os
import time
from typing import Self

from jaula.cgroups import cgroup_directory, cgroup_files, device_rules, pids
from jaula.cgroups.cgroup_driver import CpusetStats, Stats, Usage
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, is_removed, perform
from jaula.cgroups.controller import Controller, requested
from jaula.cgroups.rdma import Rdma
from jaula.cgroups.v2 import (
    cpu_v2,
    cpuset_v2,
    devices_v2,
    freezer_v2,
    hugetlb_v2,
    io,
    memory_v2,
    unified,
)
from jaula.errors import NotFound, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.spec.runtime_spec import Resources

CONTROLLERS: tuple[Controller, ...] = (
    cpu_v2.Cpu(),
    cpuset_v2.Cpuset(),
    memory_v2.Memory(),
    pids.Pids(),
    io.Io(),
    hugetlb_v2.Hugetlb(),
    Rdma(),
)

FREEZE_TIMEOUT = 2.0  # seconds


class V2Cgroup:
    """Implementation of :class:`jaula.cgroups.cgroup_driver.Cgroup`."""

    def __init__(
        self,
        path: str,
        relative: str,
        mount: str,
        root: int,
        directory: int,
        *,
        without_device_rules: bool = False,
    ) -> None:
        """Take ownership of ``directory``; ``root`` stays the driver's."""
        self.path = path
        self._relative = relative
        self._mount = mount
        self._root = root
        self._directory = directory
        self._read = cgroup_files.reader(directory)
        self._without_device_rules = without_device_rules

    def plan(self, resources: Resources) -> list[tuple[str, tuple[Step, ...]]]:
        """Return the writes by controller; raise as :meth:`apply` does, before the first write."""
        if resources.network is not None and (
            resources.network.class_id is not None or resources.network.priorities
        ):
            raise Unsupported(
                "network class and priorities of a cgroup need cgroup v1; this host has v2"
            )
        device_rules.normalize(resources.devices)
        present = (self._read("cgroup.controllers") or "").split()
        plans = [
            (controller.name, controller.decide(resources, self._read))
            for controller in CONTROLLERS
            if requested(controller, resources)
        ]
        for name, steps in plans:
            if name not in present and any(isinstance(step, FileWrite) for step in steps):
                raise Unsupported(
                    f"cannot limit {name} of cgroup {self.path}: the controller is not available",
                    hint="run without that limit, or have it delegated",
                )
        plans.append(("unified", unified.decide(resources.unified, present, self._read)))
        return plans

    def apply(self, resources: Resources) -> tuple[str, ...]:
        warnings: list[str] = []
        for _, steps in self.plan(resources):
            warnings += perform(self._directory, self.path, steps)
        if resources.devices and not self._without_device_rules:
            devices_v2.apply(self._directory, self.path, device_rules.normalize(resources.devices))
        return tuple(warnings)

    def reader(self, controller: str) -> Reader:
        """Return a reader of one controller's files, which are in the same directory on v2."""
        return self._read

    def add(self, pid: int) -> None:
        cgroup_directory.add(self._directory, self.path, pid)

    def open_attach_fds(self, *, cloned: bool = False) -> tuple[int, ...]:
        if cloned:
            return ()
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            return (os.open("cgroup.procs", flags, dir_fd=self._directory),)
        except FileNotFoundError as error:
            raise NotFound(f"cgroup {self.path} no longer exists") from error

    def release_pause_process(self) -> None:
        """Do nothing: an empty cgroup stays."""

    def directory_fd(self) -> int | None:
        return self._directory

    def stats(self, *, detailed: bool = False) -> Stats:
        read = self._read
        return Stats(
            cpu=cpu_v2.stats(read, detailed=detailed),
            memory=memory_v2.stats(read, detailed=detailed),
            pids=pids.stats(read),
            blkio=io.stats(read, detailed=detailed),
            oom_kills=memory_v2.oom_kills(read),
            hugetlb=hugetlb_v2.stats(read) if detailed else {},
            cpuset=cpuset_v2.stats(read) if detailed else CpusetStats(),
        )

    def usage(self) -> Usage:
        """Return the usage from as few files as possible."""
        read = self._read
        stats = Stats(
            cpu=cpu_v2.stats(read, detailed=True),
            memory=memory_v2.stats(read, detailed=True),
            pids=pids.stats(read),
            blkio=io.stats(read, detailed=True),
            oom_kills=memory_v2.oom_kills(read),
        )
        return Usage(stats, self.pids())

    def pids(self) -> tuple[int, ...]:
        return tuple(sorted(cgroup_directory.pids(self._directory))) if self._directory >= 0 else ()

    def freeze(self, *, wait: bool = True) -> None:
        if wait:
            freezer_v2.freeze(self._directory, self.path, FREEZE_TIMEOUT)
        else:
            freezer_v2.begin(self._directory)

    def thaw(self) -> None:
        freezer_v2.thaw(self._directory)

    def frozen(self) -> bool:
        return self._directory >= 0 and freezer_v2.frozen(self._directory)

    def kill(self) -> None:
        """Kill every process by ``cgroup.kill`` (Linux 5.14).

        It includes concurrent forks and frozen processes.
        """
        if self._directory < 0:
            return
        try:
            cgroup_files.write(self._directory, "cgroup.kill", "1")
            self.thaw()
        except OSError as error:
            if not is_removed(error):
                raise
            if cgroup_files.exists(self._directory, "cgroup.procs"):  # not removed: an older kernel
                self.kill_one_by_one()

    def kill_one_by_one(self) -> None:
        """Kill every process on kernels without ``cgroup.kill``."""
        directory = self._directory
        cgroup_directory.kill(
            self.path, lambda: cgroup_directory.pids(directory), self._freeze_for_kill, self.thaw
        )

    def _freeze_for_kill(self) -> bool:
        try:
            freezer_v2.freeze(self._directory, self.path, 0.1)
        except Unavailable:
            return False
        return True

    def destroy(self, timeout: float = 2.0) -> None:
        cgroup_directory.remove(self._root, self._relative, time.monotonic() + timeout)
        self.close()

    def oom_kills(self) -> int:
        return memory_v2.oom_kills(self._read)

    def is_oom(self, kills: int) -> bool:
        return self.oom_kills() > kills

    def peak_memory(self) -> int:
        return cgroup_files.number(self._read("memory.peak"))

    def oom_fd(self) -> int | None:
        return memory_v2.subscribe_oom(self._directory)

    def limits(self) -> dict[str, str]:
        texts: dict[str, str] = {}
        for controller in CONTROLLERS:
            for file in controller.limits:
                if (text := self._read(file)) is not None:
                    texts[file] = text
        if (
            self._directory >= 0
            and (programs := devices_v2.attached_programs(self._directory)) is not None
        ):
            texts["bpf.cgroup_device"] = programs
        return texts

    def locations(self) -> dict[str, str]:
        directory = f"{self._mount}/{self._relative}"
        present = (self._read("cgroup.controllers") or "").split()
        return dict.fromkeys(("", *present), directory)

    def close(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
            self._read = cgroup_files.reader(None)  # the descriptor number may be reused

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
