"""A v2 cgroup: one directory.

The table of controllers below is where one is added. What each writes is decided in its own file;
devices are no controller with files here and go by a program of their own.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Self

from jaula.cgroups import files, pids, rules, tree
from jaula.cgroups.controller import Controller
from jaula.cgroups.protocol import Stats
from jaula.cgroups.v2 import cpu, devices, freezer, io, memory, oom
from jaula.cgroups.v2.cpuset import Cpuset
from jaula.cgroups.v2.hugetlb import Hugetlb
from jaula.cgroups.writes import Write, perform
from jaula.errors import InvalidRequest, Unsupported
from jaula.spec.runtime import Resources

CONTROLLERS: tuple[Controller, ...] = (
    cpu.Cpu(),
    Cpuset(),
    memory.Memory(),
    pids.Pids(),
    io.Io(),
    Hugetlb(),
)

FREEZE_TIMEOUT = 2.0  # seconds


class Cgroup:
    """See :class:`jaula.cgroups.protocol.Cgroup`, whose contract this keeps."""

    def __init__(self, path: str, relative: str, mount: str, root: int, directory: int) -> None:
        """Takes ``directory``; ``root`` is the driver's."""
        self.path = path
        self._relative = relative
        self._mount = mount
        self._root = root
        self._directory = directory
        self._read = files.reader(directory)

    def apply(self, resources: Resources) -> tuple[str, ...]:
        plans = [
            (controller.name, controller.decide(resources, self._read))
            for controller in CONTROLLERS
        ]
        unified = tuple(_unified(name, value) for name, value in resources.unified.items())
        device_rules = rules.normal(resources.devices)
        present = (self._read("cgroup.controllers") or "").split()
        for name, steps in plans:
            if name not in present and any(isinstance(step, Write) for step in steps):
                raise Unsupported(
                    f"cannot limit {name} of cgroup {self.path}: the controller is not available",
                    hint="run without that limit, or have it delegated",
                )
        warnings: list[str] = []
        for _, steps in plans:
            warnings += perform(self._directory, self.path, steps)
        warnings += perform(self._directory, self.path, unified)
        if device_rules:
            devices.apply(self._directory, self.path, device_rules)
        return tuple(warnings)

    def add(self, pid: int) -> None:
        tree.add(self._directory, self.path, pid)

    def entry(self) -> tuple[int, ...]:
        flags = os.O_WRONLY | os.O_CLOEXEC
        return (os.open("cgroup.procs", flags, dir_fd=self._directory),)

    def directory_fd(self) -> int | None:
        return self._directory

    def stats(self) -> Stats:
        read = self._read
        return Stats(
            cpu=cpu.stats(read),
            memory=memory.stats(read),
            pids=pids.stats(read),
            blkio=io.stats(read),
            oom_kills=memory.oom_kills(read),
        )

    def pids(self) -> tuple[int, ...]:
        return tuple(sorted(tree.pids(self._directory))) if self._directory >= 0 else ()

    def freeze(self) -> None:
        freezer.freeze(self._directory, self.path, FREEZE_TIMEOUT)

    def thaw(self) -> None:
        freezer.thaw(self._directory)

    def frozen(self) -> bool:
        return self._directory >= 0 and freezer.frozen(self._directory)

    def kill(self) -> None:
        """By ``cgroup.kill`` (Linux 5.14), which no fork outruns and no freezing stops."""
        if self._directory < 0:
            return
        try:
            files.write(self._directory, "cgroup.kill", "1")
            self.thaw()
        except OSError as error:
            if error.errno == errno.ENODEV:
                return  # removed since: nothing is left to kill
            if error.errno == errno.ENOENT and files.exists(self._directory, "cgroup.procs"):
                raise Unsupported("this kernel has no cgroup.kill, Linux 5.14 is needed") from error
            if error.errno != errno.ENOENT:
                raise

    def destroy(self, timeout: float = 2.0) -> None:
        tree.remove(self._root, self._relative, time.monotonic() + timeout)
        self.close()

    def oom_kills(self) -> int:
        return memory.oom_kills(self._read)

    def peak_memory(self) -> int:
        return files.number(self._read("memory.peak"))

    def oom_fd(self) -> int | None:
        return oom.subscribe(self._directory)

    def limits(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for controller in CONTROLLERS:
            for file in controller.limits:
                if (text := self._read(file)) is not None:
                    found[file] = text
        if self._directory >= 0 and (programs := devices.in_force(self._directory)) is not None:
            found["bpf.cgroup_device"] = programs
        return found

    def locations(self) -> dict[str, str]:
        directory = f"{self._mount}/{self._relative}"
        present = (self._read("cgroup.controllers") or "").split()
        return dict.fromkeys(("", *present), directory)

    def close(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
            self._read = files.reader(None)  # the number may soon be another file's

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unified(name: str, value: str) -> Write:
    """A raw file of OCI's ``unified``; the name must be an interface file's and no path."""
    controller, dot, _ = name.partition(".")
    if not dot or not controller.isalnum() or "/" in name or not name.isprintable():
        raise InvalidRequest(f"bad unified resource {name!r}", hint="for example memory.high")
    if controller == "cgroup" or "\0" in value or not value.isascii():
        raise InvalidRequest(f"unified resource {name!r} may not be set to {value!r}")
    return Write(name, value)
