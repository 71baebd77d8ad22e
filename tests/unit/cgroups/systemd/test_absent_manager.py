"""Calls while systemd executes itself again (``systemctl daemon-reexec``): nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from harness.systemd_manager import (
    AFTER,
    BEFORE,
    GONE,
    NAME,
    SILENT,
    UNSIGNALLED,
    Manager,
    PrivateManager,
    Unit,
)
from jaula.cgroups.systemd import bus
from jaula.cgroups.systemd.bus import Address, Connection
from jaula.cgroups.systemd.properties import UnitProperty
from jaula.errors import Conflict, JaulaError, NotFound, Unavailable

PID = 5
PIDS = [UnitProperty("PIDs", "au", [PID])]
POLL = 0.5  # seconds


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "_JOB_POLL", POLL)


@pytest.fixture(params=["bus", "private"])
def absent(request: pytest.FixtureRequest) -> Manager:
    """A manager that a call can make execute itself again."""
    name = "manager" if request.param == "bus" else "private_manager"
    found: Manager = request.getfixturevalue(name)
    return found


def connected(manager: Manager) -> Connection:
    on_bus = not isinstance(manager, PrivateManager)
    return Connection(Address((manager.socket, on_bus), directory="/nonexistent"))


@pytest.mark.parametrize(
    ("moments", "starts"),
    [
        ([BEFORE], 2),
        ([AFTER], 2),
        ([UNSIGNALLED], 1),
        ([BEFORE, AFTER], 3),
        ([AFTER, AFTER], 3),
        ([BEFORE, UNSIGNALLED], 2),
    ],
)
@pytest.mark.parametrize("pending", [0, 2])
def test_a_unit_is_started_once(
    absent: Manager, moments: list[str], starts: int, pending: int
) -> None:
    absent.interruptions["StartTransientUnit"] = list(moments)
    absent.pending = pending
    with connected(absent) as systemd:
        systemd.start("a.scope", PIDS, PID)
        assert absent.executions == len(moments)
        assert absent.methods().count("StartTransientUnit") == starts
        # systemd keeps the subscriptions of a connection to the bus.
        kept = moments.count(UNSIGNALLED) if not isinstance(absent, PrivateManager) else 0
        assert absent.methods().count("Subscribe") == 1 + len(moments) - kept
        assert "StopUnit" not in absent.methods()
        assert absent.units["a.scope"].pids == [PID]
        if moments != [BEFORE]:  # whose job is signalled
            assert absent.units["a.scope"].pending == 0
        # Another job is waited for by its signal.
        begin = time.monotonic()
        systemd.stop("a.scope")
        assert time.monotonic() - begin < POLL


@pytest.mark.parametrize("method", ["GetUnit", "Get", "GetUnitByPID"])
def test_the_unit_is_known_beside_a_second_execution(absent: Manager, method: str) -> None:
    absent.interruptions = {"StartTransientUnit": [AFTER], method: [BEFORE, AFTER]}
    with connected(absent) as systemd:
        systemd.start("a.scope", PIDS, PID)
    assert absent.executions == 3
    assert absent.units["a.scope"].pids == [PID]


def test_another_unit_of_the_name_is_a_conflict(manager: Manager) -> None:
    manager.units["a.scope"] = Unit([PID + 1], "/other.slice/a.scope")
    manager.interruptions["StartTransientUnit"] = [BEFORE]
    with connected(manager) as systemd:
        with pytest.raises(Conflict, match="the manager says no"):
            systemd.start("a.scope", PIDS, PID)
        assert systemd.cgroup("a.scope") == "/other.slice/a.scope"
        assert systemd.cgroup("b.scope") == ""
    assert manager.units["a.scope"].pids == [PID + 1]


def test_a_failed_start_without_a_signal_is_an_error(manager: Manager) -> None:
    manager.interruptions["StartTransientUnit"] = [UNSIGNALLED]
    manager.answers["StartTransientUnit"] = "failed"
    with (
        connected(manager) as systemd,
        pytest.raises(JaulaError, match=r"could not start unit a\.scope: failed"),
    ):
        systemd.start("a.scope", PIDS, PID)
    assert manager.methods()[-1] == "ResetFailedUnit"


@pytest.mark.parametrize(
    "moments", [[BEFORE], [AFTER], [UNSIGNALLED], [BEFORE, AFTER], [BEFORE, UNSIGNALLED]]
)
def test_a_unit_is_stopped(absent: Manager, moments: list[str]) -> None:
    absent.units["a.scope"] = Unit()
    absent.interruptions["StopUnit"] = list(moments)
    with connected(absent) as systemd:
        systemd.stop("a.scope")
    assert absent.executions == len(moments)
    assert absent.units == {}


@pytest.mark.parametrize("moments", [[BEFORE], [AFTER], [BEFORE, AFTER]])
@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("SetUnitProperties", lambda systemd: systemd.set("a.scope", PIDS)),
        ("AttachProcessesToUnit", lambda systemd: systemd.attach("a.scope", "/x", PID)),
        ("ResetFailedUnit", lambda systemd: systemd.reset_failed("a.scope")),
        ("Get", lambda systemd: systemd.manager_property("Version")),
    ],
)
def test_a_call_is_repeated(
    absent: Manager, method: str, call: Callable[[Connection], object], moments: list[str]
) -> None:
    absent.units["a.scope"] = Unit()
    absent.interruptions[method] = list(moments)
    with connected(absent) as systemd:
        call(systemd)
    assert [body for name, body in absent.calls if name == method] == [
        next(body for name, body in absent.calls if name == method)
    ] * (len(moments) + 1)


def test_a_call_about_a_unit_that_ended_meanwhile_is_not_found(manager: Manager) -> None:
    manager.interruptions["SetUnitProperties"] = [BEFORE]
    with connected(manager) as systemd, pytest.raises(NotFound):
        systemd.set("a.scope", PIDS)


def test_a_connection_begins_while_the_manager_is_absent(absent: Manager) -> None:
    """The directory of the manager tells an absence from a host without systemd."""
    absent.interruptions["Subscribe"] = [BEFORE, AFTER]
    on_bus = not isinstance(absent, PrivateManager)
    with Connection(Address((absent.socket, on_bus), directory="/tmp")) as systemd:
        assert systemd.manager_property("Version") == "257.1"
    assert absent.executions == 2


def test_the_attempts_end(absent: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "RETRY_TIMEOUT", 1.0)
    absent.interruptions["StopUnit"] = [GONE]
    absent.units["a.scope"] = Unit()
    with connected(absent) as systemd:
        begin = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            systemd.stop("a.scope")
        assert time.monotonic() - begin < 3.0
    assert caught.value.message.startswith(
        "asked systemd for StopUnit a.scope, but it was away for 1 seconds: "
    )
    assert "try again when `systemctl is-system-running` answers" in (caught.value.hint or "")


def test_a_manager_that_is_present_but_silent_ends_the_attempts(
    private_manager: PrivateManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bus keeps calls for systemd until it returns, and answers nothing meanwhile."""
    monkeypatch.setattr(bus, "RETRY_TIMEOUT", 1.0)
    private_manager.interruptions["SetUnitProperties"] = [BEFORE, SILENT, SILENT]
    with connected(private_manager) as systemd:
        begin = time.monotonic()
        with pytest.raises(Unavailable, match=r"SetUnitProperties a\.scope, but it was away for 1"):
            systemd.set("a.scope", PIDS)
        assert time.monotonic() - begin < 3.0


def test_a_refusal_is_not_repeated(manager: Manager) -> None:
    manager.answers["StartTransientUnit"] = f"{NAME}.UnitExists"
    with connected(manager) as systemd, pytest.raises(Conflict):
        systemd.start("a.scope", PIDS, PID)
    assert manager.methods() == ["Subscribe", "StartTransientUnit"]
