"""The systemd driver: the last component of a path is a unit, its parent the unit's slice.

:mod:`jaula.cgroups.cgroup_path` returns such paths: ``/a.slice/a-b.slice/jaula-ID.scope``. For a
user's manager the path is relative to the manager's own cgroup. A cgroup's ``path`` includes that
prefix; :meth:`SystemdDriver.open` accepts both.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaula.cgroups import cgroup_path
from jaula.cgroups.cgroup_driver import Usage
from jaula.cgroups.systemd.bus import Address, Connection
from jaula.cgroups.systemd.pause_process import PauseProcess
from jaula.cgroups.systemd.properties import UnitProperty, scope_properties
from jaula.cgroups.systemd.systemd_cgroup import SystemdCgroup
from jaula.errors import Conflict, InvalidRequest, NotFound, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from jaula.cgroups.systemd.systemd_cgroup import CgroupfsCgroup

    class CgroupfsDriver(Protocol):
        """The driver of the host's cgroup files."""

        version: int

        def adopt(self, path: str) -> CgroupfsCgroup: ...
        def open(self, path: str) -> CgroupfsCgroup: ...
        def usage(self, path: str) -> Usage: ...
        def controllers(self) -> frozenset[str]: ...
        def features(self) -> frozenset[str]: ...
        def warnings(self) -> tuple[str, ...]: ...


class SystemdDriver:
    """Implementation of :class:`jaula.cgroups.cgroup_driver.CgroupDriver`."""

    name = "systemd"

    def __init__(
        self,
        host: CgroupfsDriver,
        *,
        user: bool = False,
        properties: Iterable[UnitProperty] = (),
        without_device_rules: bool = False,
        address: Address | None = None,
    ) -> None:
        """Select the system manager, or with ``user`` the user's.

        ``properties`` are set on each new unit.

        :raises Unsupported: when ``user`` is set on v1.
        """
        if user and host.version == 1:
            raise Unsupported("cannot use rootless systemd cgroups on cgroup v1")
        self._host = host
        self._user = user
        self._properties = tuple(properties)
        self._without_device_rules = without_device_rules
        self._address = address or (Address.user() if user else Address.system())
        self.version = host.version

    def create(self, path: str) -> SystemdCgroup:
        parent, unit = split_path(path)
        with Connection(self._address) as systemd:
            full = self._root(systemd) + path
            pause_process = PauseProcess() if unit.endswith(".scope") else None
            pid = pause_process.pid if pause_process else None
            try:
                properties = (
                    *scope_properties(
                        unit,
                        parent,
                        pid,
                        f"container {unit.rpartition('.')[0]}",
                        self.version,
                    ),
                    *self._properties,
                )
                try:
                    systemd.start(unit, properties, pid)
                except Conflict:
                    self._clear(systemd, unit, full)
                    systemd.start(unit, properties, pid)
                try:
                    inner = self._host.adopt(full)
                except BaseException:
                    systemd.stop(unit)
                    raise
            except BaseException:
                if pause_process is not None:
                    pause_process.end()
                raise
        return self._cgroup(unit, inner, pause_process)

    def open(self, path: str) -> SystemdCgroup:
        _, unit = split_path(path)
        try:
            return self._cgroup(unit, self._host.open(path), None)
        except NotFound:
            if not self._user:
                raise
        with Connection(self._address) as systemd:
            full = self._root(systemd) + path
        return self._cgroup(unit, self._host.open(full), None)

    def usage(self, path: str) -> Usage:
        return self._host.usage(path)

    def controllers(self) -> frozenset[str]:
        return self._host.controllers()

    def features(self) -> frozenset[str]:
        return self._host.features()

    def warnings(self) -> tuple[str, ...]:
        return self._host.warnings()

    def _root(self, systemd: Connection) -> str:
        """Return the cgroup of the user's manager without a final slash; "" for the system's."""
        return systemd.manager_property("ControlGroup").rstrip("/") if self._user else ""

    def _clear(self, systemd: Connection, unit: str, full: str) -> None:
        """Stop and forget an empty or failed unit.

        :raises Conflict: when the unit has processes, or a cgroup elsewhere.
        """
        actual = systemd.cgroup(unit)
        if actual not in ("", full):
            raise Conflict(
                f"systemd has a unit {unit} already, with the cgroup {actual}, not {full}",
                hint="choose another name, or stop that unit",
            )
        try:
            with self._host.open(full) as leftover:
                processes = leftover.pids()
        except NotFound:
            processes = ()
        if processes:
            raise Conflict(f"cgroup {full} is in use by process {processes[0]}")
        systemd.stop(unit)
        systemd.reset_failed(unit)

    def _cgroup(
        self, unit: str, inner: CgroupfsCgroup, pause_process: PauseProcess | None
    ) -> SystemdCgroup:
        return SystemdCgroup(
            unit,
            inner,
            self.version,
            self._address,
            pause_process,
            without_device_rules=self._without_device_rules,
        )


def split_path(path: str) -> tuple[str, str]:
    """Return (slice, unit) of a path. Pure.

    :raises InvalidRequest: when the path is not that of a unit.
    """
    *parents, unit = cgroup_path.relative(path).split("/")
    parent = parents[-1] if parents else "-.slice"
    if not unit.endswith((".scope", ".slice")) or not parent.endswith((".slice", ".service")):
        raise InvalidRequest(
            f"{path} is not a systemd unit", hint="for example /machine.slice/machine-NAME.scope"
        )
    return parent, unit
