"""A cgroup that is a unit of systemd: limits go to the unit first, then to the files."""

from __future__ import annotations

import time
from typing import Protocol, Self

from jaula.cgroups.files import Reader, Step
from jaula.cgroups.protocol import Cgroup as AnyCgroup
from jaula.cgroups.protocol import Stats
from jaula.cgroups.systemd.bus import Address, Connection
from jaula.cgroups.systemd.pause_process import PauseProcess
from jaula.cgroups.systemd.properties import resource_properties
from jaula.errors import Conflict
from jaula.spec.runtime import Resources


class CgroupfsCgroup(AnyCgroup, Protocol):
    """The same cgroup as its files, on v1 or v2."""

    def plan(self, resources: Resources) -> list[tuple[str, tuple[Step, ...]]]: ...

    def reader(self, controller: str) -> Reader: ...


class SystemdCgroup:
    """See :class:`jaula.cgroups.protocol.Cgroup`, whose contract this keeps."""

    def __init__(
        self,
        unit: str,
        inner: CgroupfsCgroup,
        version: int,
        address: Address,
        placeholder: PauseProcess | None,
        *,
        without_device_rules: bool,
    ) -> None:
        self.unit = unit
        self.path = inner.path
        self._inner = inner
        self._version = version
        self._address = address
        self._placeholder = placeholder
        self._without_device_rules = without_device_rules

    def apply(self, resources: Resources) -> tuple[str, ...]:
        self._inner.plan(resources)  # what cannot be is said before anything is changed
        with Connection(self._address) as systemd:
            wanted = resource_properties(
                resources,
                self._inner.reader("memory" if self._version == 2 else "cpu"),
                version=self._version,
                systemd=major(systemd.manager_property("Version")),
                devices=None if self._without_device_rules else _device_table(),
            )
            if wanted:
                systemd.set(self.unit, wanted)
        return self._inner.apply(resources)

    def add(self, pid: int) -> None:
        self._inner.add(pid)

    def entry(self) -> tuple[int, ...]:
        return self._inner.entry()

    def directory_fd(self) -> int | None:
        return self._inner.directory_fd()

    def settle(self) -> None:
        if self._placeholder is not None:
            self._placeholder.end()
            self._placeholder = None

    def stats(self, *, detailed: bool = False) -> Stats:
        return self._inner.stats(detailed=detailed)

    def pids(self) -> tuple[int, ...]:
        own = self._placeholder.pid if self._placeholder is not None else 0
        return tuple(pid for pid in self._inner.pids() if pid != own)

    def freeze(self) -> None:
        self._inner.freeze()

    def thaw(self) -> None:
        self._inner.thaw()

    def frozen(self) -> bool:
        return self._inner.frozen()

    def kill(self) -> None:
        self._inner.kill()
        self.settle()

    def destroy(self, timeout: float = 2.0) -> None:
        """Waits for the processes first, since to stop a unit is to kill them."""
        deadline = time.monotonic() + timeout
        while found := self.pids():
            if time.monotonic() >= deadline:
                listed = ", ".join(map(str, found[:8]))
                raise Conflict(
                    f"cannot remove cgroup {self.path}: in use by {listed}", hint="kill them first"
                )
            time.sleep(0.002)
        self.settle()
        with Connection(self._address) as systemd:
            systemd.stop(self.unit)
            systemd.forget(self.unit)
        self._inner.destroy(max(deadline - time.monotonic(), 0.5))

    def oom_kills(self) -> int:
        return self._inner.oom_kills()

    def peak_memory(self) -> int:
        return self._inner.peak_memory()

    def oom_fd(self) -> int | None:
        return self._inner.oom_fd()

    def limits(self) -> dict[str, str]:
        return self._inner.limits()

    def locations(self) -> dict[str, str]:
        return self._inner.locations()

    def close(self) -> None:
        self.settle()
        self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def major(version: str) -> int:
    """``257.9-1~deb13u1`` is 257; 0 for a text without a number. Pure."""
    digits = ""
    for character in version.lstrip('"v'):
        if not character.isdigit():
            break
        digits += character
    return int(digits or 0)


def _device_table() -> str:
    with open("/proc/devices", encoding="ascii", errors="replace") as table:
        return table.read()
