"""The driver of an engine whose containers are scopes of systemd.

The last part of a path tells who owns a cgroup: a scope is a unit of systemd, any other cgroup is a
directory. So containers of an engine that had the driver cgroupfs before stay as they are.
"""

from __future__ import annotations

from jaula.cgroups.cgroup_driver import Cgroup, Usage
from jaula.cgroups.cgroup_path import SCOPE
from jaula.cgroups.systemd.systemd_driver import SystemdDriver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from jaula.cgroups.systemd.systemd_cgroup import CgroupfsCgroup
    from jaula.cgroups.systemd.systemd_driver import CgroupfsDriver

    class HostDriver(CgroupfsDriver, Protocol):
        """The driver of the host's cgroup files, which also creates cgroups."""

        def create(self, path: str) -> CgroupfsCgroup: ...


class EngineDriver:
    """Implementation of :class:`jaula.cgroups.cgroup_driver.CgroupDriver`."""

    name = "systemd"

    def __init__(self, host: HostDriver) -> None:
        self._host = host
        self._systemd = SystemdDriver(host)
        self.version = host.version

    def create(self, path: str) -> Cgroup:
        return self._systemd.create(path) if path.endswith(SCOPE) else self._host.create(path)

    def open(self, path: str) -> Cgroup:
        return self._systemd.open(path) if path.endswith(SCOPE) else self._host.open(path)

    def usage(self, path: str) -> Usage:
        return self._host.usage(path)

    def controllers(self) -> frozenset[str]:
        return self._host.controllers()

    def features(self) -> frozenset[str]:
        return self._host.features()

    def warnings(self) -> tuple[str, ...]:
        return self._host.warnings()
