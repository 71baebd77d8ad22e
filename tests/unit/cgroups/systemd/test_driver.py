"""Units that a driver creates, keeps and replaces, also while systemd executes itself again."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from harness.systemd_manager import AFTER, BEFORE, UNSIGNALLED, Manager, Unit
from jaula.cgroups.systemd.bus import Address
from jaula.cgroups.systemd.systemd_driver import SystemdDriver
from jaula.errors import Conflict, NotFound

UNIT = "jlt-x.scope"
PATH = f"/jlt.slice/{UNIT}"


class Host:
    """The driver of the cgroup files: a cgroup is a list of processes."""

    version = 2

    def __init__(self) -> None:
        self.processes: dict[str, tuple[int, ...]] = {}

    def open(self, path: str) -> Any:
        if path not in self.processes:
            raise NotFound(path)
        return nullcontext(SimpleNamespace(pids=lambda: self.processes[path]))

    def adopt(self, path: str) -> Any:
        return SimpleNamespace(path=path, close=lambda: None)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def driver(host: Host, manager: Manager) -> SystemdDriver:
    address = Address((manager.socket, True), directory="/nonexistent")
    return SystemdDriver(host, address=address)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "moments", [[BEFORE], [AFTER], [UNSIGNALLED], [AFTER, AFTER], [BEFORE, AFTER]]
)
def test_a_unit_of_a_lost_answer_is_kept(
    driver: SystemdDriver, manager: Manager, moments: list[str]
) -> None:
    manager.interruptions["StartTransientUnit"] = list(moments)
    cgroup = driver.create(PATH)
    try:
        assert cgroup.path == PATH
        (pid,) = manager.units[UNIT].pids
        assert cgroup._pause_process is not None
        assert cgroup._pause_process.pid == pid
        assert "StopUnit" not in manager.methods()
        assert manager.executions == len(moments)
    finally:
        cgroup.release_pause_process()


def test_a_slice_of_a_lost_answer_is_used(driver: SystemdDriver, manager: Manager) -> None:
    manager.interruptions["StartTransientUnit"] = [AFTER]
    with driver.create("/jlt.slice/jlt-own.slice") as cgroup:
        assert cgroup.path == "/jlt.slice/jlt-own.slice"
        assert list(manager.units) == ["jlt-own.slice"]


@pytest.mark.parametrize("moments", [[], [BEFORE], [AFTER]])
def test_an_empty_unit_is_replaced(
    driver: SystemdDriver, host: Host, manager: Manager, moments: list[str]
) -> None:
    manager.units[UNIT] = Unit([], PATH, "failed")
    host.processes[PATH] = ()
    manager.interruptions["StopUnit"] = list(moments)
    cgroup = driver.create(PATH)
    try:
        assert manager.units[UNIT].state == "active"
        assert len(manager.units[UNIT].pids) == 1
    finally:
        cgroup.release_pause_process()


@pytest.mark.parametrize("moments", [[], [BEFORE], [BEFORE, BEFORE]])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        (PATH, f"cgroup {PATH} is in use by process 77"),
        (f"/other.slice/{UNIT}", f"systemd has a unit {UNIT} already, with the cgroup /other"),
    ],
)
def test_a_unit_with_processes_is_not_stopped(
    driver: SystemdDriver,
    host: Host,
    manager: Manager,
    moments: list[str],
    path: str,
    message: str,
) -> None:
    """A name is of the whole host, so the unit may be in another slice."""
    manager.units[UNIT] = Unit([77], path)
    host.processes[path] = (77,)
    manager.interruptions["StartTransientUnit"] = list(moments)
    with pytest.raises(Conflict, match=message):
        driver.create(PATH)
    assert "StopUnit" not in manager.methods()
    assert manager.units[UNIT].pids == [77]


def test_a_unit_that_another_process_starts_is_not_stopped(
    driver: SystemdDriver, host: Host, manager: Manager
) -> None:
    """It has no cgroup until its job has ended."""
    manager.units[UNIT] = Unit([77], PATH, pending=3)
    host.processes[PATH] = (77,)
    with pytest.raises(Conflict, match="is in use by process 77"):
        driver.create(PATH)
    assert "StopUnit" not in manager.methods()
