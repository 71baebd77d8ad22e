"""A cgroup that is a systemd unit: limits are set on the unit first, then in the files."""

from __future__ import annotations

import time

from jaula.cgroups.cgroup_driver import Cgroup as AnyCgroup
from jaula.cgroups.cgroup_driver import Stats
from jaula.cgroups.cgroup_files import Reader, Step
from jaula.cgroups.systemd.bus import Address, Connection
from jaula.cgroups.systemd.pause_process import PauseProcess
from jaula.cgroups.systemd.properties import resource_properties
from jaula.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, Self

    from jaula.spec.runtime_spec import Resources

    class CgroupfsCgroup(AnyCgroup, Protocol):
        """The same cgroup by its files, on v1 or v2."""

        def plan(self, resources: Resources) -> list[tuple[str, tuple[Step, ...]]]: ...

        def reader(self, controller: str) -> Reader: ...


class SystemdCgroup:
    """Implementation of :class:`jaula.cgroups.cgroup_driver.Cgroup`."""

    def __init__(
        self,
        unit: str,
        inner: CgroupfsCgroup,
        version: int,
        address: Address,
        pause_process: PauseProcess | None,
        *,
        without_device_rules: bool,
    ) -> None:
        self.unit = unit
        self.path = inner.path
        self._inner = inner
        self._version = version
        self._address = address
        self._pause_process = pause_process
        self._without_device_rules = without_device_rules

    def apply(self, resources: Resources) -> tuple[str, ...]:
        self._inner.plan(resources)  # raises for invalid limits before any change
        with Connection(self._address) as systemd:
            properties = resource_properties(
                resources,
                self._inner.reader("memory" if self._version == 2 else "cpu"),
                version=self._version,
                systemd=major(systemd.manager_property("Version")),
                devices=None if self._without_device_rules else _device_table(),
            )
            if properties:
                systemd.set(self.unit, properties)
        return self._inner.apply(resources)

    def add(self, pid: int) -> None:
        self._inner.add(pid)

    def open_attach_fds(self, *, cloned: bool = False) -> tuple[int, ...]:
        return self._inner.open_attach_fds(cloned=cloned)

    def directory_fd(self) -> int | None:
        return self._inner.directory_fd()

    def release_pause_process(self) -> None:
        if self._pause_process is not None:
            self._pause_process.end()
            self._pause_process = None

    def stats(self, *, detailed: bool = False) -> Stats:
        return self._inner.stats(detailed=detailed)

    def pids(self) -> tuple[int, ...]:
        pause_pid = self._pause_process.pid if self._pause_process is not None else 0
        return tuple(pid for pid in self._inner.pids() if pid != pause_pid)

    def freeze(self, *, wait: bool = True) -> None:
        self._inner.freeze(wait=wait)

    def thaw(self) -> None:
        self._inner.thaw()

    def frozen(self) -> bool:
        return self._inner.frozen()

    def kill(self) -> None:
        self._inner.kill()
        self.release_pause_process()

    def destroy(self, timeout: float = 2.0) -> None:
        """Wait for the processes first, because stopping a unit kills them."""
        deadline = time.monotonic() + timeout
        while processes := self.pids():
            if time.monotonic() >= deadline:
                listed = ", ".join(map(str, processes[:8]))
                raise Conflict(
                    f"cannot remove cgroup {self.path}: in use by {listed}", hint="kill them first"
                )
            time.sleep(0.002)
        self.release_pause_process()
        with Connection(self._address) as systemd:
            systemd.stop(self.unit)
            systemd.reset_failed(self.unit)
        self._inner.destroy(max(deadline - time.monotonic(), 0.5))

    def oom_kills(self) -> int:
        return self._inner.oom_kills()

    def is_oom(self, kills: int) -> bool:
        return self._inner.is_oom(kills)

    def peak_memory(self) -> int:
        return self._inner.peak_memory()

    def oom_fd(self) -> int | None:
        return self._inner.oom_fd()

    def limits(self) -> dict[str, str]:
        return self._inner.limits()

    def locations(self) -> dict[str, str]:
        return self._inner.locations()

    def close(self) -> None:
        self.release_pause_process()
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def major(version: str) -> int:
    """Return the major number: ``257.9-1~deb13u1`` is 257; 0 without a number. Pure."""
    digits = ""
    for character in version.lstrip('"v'):
        if not character.isdigit():
            break
        digits += character
    return int(digits or 0)


def _device_table() -> str:
    with open("/proc/devices", encoding="ascii", errors="replace") as table:
        return table.read()
