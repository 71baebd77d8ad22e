"""The systemd driver: the last part of a path is a unit, the one above it the unit's slice.

A path is the one that :mod:`jaula.cgroups.cgroup_path` gives: ``/a.slice/a-b.slice/jaula-ID.scope``. For
a user's manager it is below the manager's own cgroup, and a cgroup's ``path`` has that in front;
:meth:`SystemdDriver.open` takes both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from jaula.cgroups import cgroup_path
from jaula.cgroups.systemd.bus import Address, Connection
from jaula.cgroups.systemd.cgroup import CgroupfsCgroup, SystemdCgroup
from jaula.cgroups.systemd.pause_process import PauseProcess
from jaula.cgroups.systemd.properties import UnitProperty, scope_properties
from jaula.errors import Conflict, InvalidRequest, NotFound, Unsupported


class CgroupfsDriver(Protocol):
    """The driver of the host's files."""

    version: int

    def adopt(self, path: str) -> CgroupfsCgroup: ...
    def open(self, path: str) -> CgroupfsCgroup: ...
    def controllers(self) -> frozenset[str]: ...
    def features(self) -> frozenset[str]: ...
    def warnings(self) -> tuple[str, ...]: ...


class SystemdDriver:
    """Keeps the contract of :class:`jaula.cgroups.protocol.CgroupDriver`."""

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
        """``user`` asks the user's own manager; ``properties`` are added to each new unit."""
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
            placeholder = PauseProcess() if unit.endswith(".scope") else None
            try:
                wanted = (
                    *scope_properties(
                        unit,
                        parent,
                        placeholder.pid if placeholder else None,
                        f"container {unit.rpartition('.')[0]}",
                        self.version,
                    ),
                    *self._properties,
                )
                try:
                    systemd.start(unit, wanted)
                except Conflict:
                    self._clear(systemd, unit, full)
                    systemd.start(unit, wanted)
                try:
                    inner = self._host.adopt(full)
                except BaseException:
                    systemd.stop(unit)
                    raise
            except BaseException:
                if placeholder is not None:
                    placeholder.end()
                raise
        return self._cgroup(unit, inner, placeholder)

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

    def controllers(self) -> frozenset[str]:
        return self._host.controllers()

    def features(self) -> frozenset[str]:
        return self._host.features()

    def warnings(self) -> tuple[str, ...]:
        return self._host.warnings()

    def _root(self, systemd: Connection) -> str:
        """Where the manager's own tree begins, without a slash at its end."""
        return systemd.manager_property("ControlGroup").rstrip("/") if self._user else ""

    def _clear(self, systemd: Connection, unit: str, full: str) -> None:
        """Have an empty or failed unit of that name go; ``Conflict`` where it has processes."""
        try:
            with self._host.open(full) as left:
                found = left.pids()
        except NotFound:
            found = ()
        if found:
            raise Conflict(f"cgroup {full} is in use by process {found[0]}")
        systemd.stop(unit)
        systemd.forget(unit)

    def _cgroup(
        self, unit: str, inner: CgroupfsCgroup, placeholder: PauseProcess | None
    ) -> SystemdCgroup:
        return SystemdCgroup(
            unit,
            inner,
            self.version,
            self._address,
            placeholder,
            without_device_rules=self._without_device_rules,
        )


def split_path(path: str) -> tuple[str, str]:
    """(slice, unit) of a path; raises ``InvalidRequest``. Pure."""
    *above, unit = cgroup_path.relative(path).split("/")
    parent = above[-1] if above else "-.slice"
    if not unit.endswith((".scope", ".slice")) or not parent.endswith((".slice", ".service")):
        raise InvalidRequest(
            f"{path} is no unit of systemd", hint="as /machine.slice/machine-NAME.scope"
        )
    return parent, unit
