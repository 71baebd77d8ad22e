"""Calls to a manager over a real bus, on which a small service records them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.systemd_manager import NAME, Manager
from jaula.cgroups.systemd.bus import Address, Connection
from jaula.cgroups.systemd.properties import UnitProperty
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, Unavailable


def connected(address: str) -> Connection:
    sockets = (("/nonexistent/bus", True), (address, True))
    return Connection(Address(*sockets, directory="/nonexistent"))


def test_a_unit_is_started_changed_and_stopped(address: str, manager: Manager) -> None:
    with connected(address) as systemd:
        assert systemd.manager_property("Version") == "257.1"
        properties = [UnitProperty("PIDs", "au", [5]), UnitProperty("Delegate", "b", True)]
        systemd.start("a.scope", properties, 5)
        systemd.set("a.scope", [UnitProperty("AllowedCPUs", "ay", b"\x03")])
        systemd.set("a.scope", [UnitProperty("DeviceAllow", "a(ss)", [("/dev/null", "r")])])
        systemd.stop("a.scope")
        systemd.reset_failed("a.scope")
    assert manager.calls == [
        ("Subscribe", ()),
        ("Get", (f"{NAME}.Manager", "Version")),
        (
            "StartTransientUnit",
            ("a.scope", "fail", [("PIDs", ("au", [5])), ("Delegate", ("b", True))], []),
        ),
        ("SetUnitProperties", ("a.scope", True, [("AllowedCPUs", ("ay", b"\x03"))])),
        (
            "SetUnitProperties",
            ("a.scope", True, [("DeviceAllow", ("a(ss)", [("/dev/null", "r")]))]),
        ),
        ("StopUnit", ("a.scope", "replace")),
        ("ResetFailedUnit", ("a.scope",)),
    ]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (f"{NAME}.UnitExists", Conflict),
        ("org.freedesktop.DBus.Error.AccessDenied", NotAuthorized),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", NotAuthorized),
        ("org.freedesktop.DBus.Error.PropertyReadOnly", InvalidRequest),
        ("org.freedesktop.DBus.Error.Failed", JaulaError),
    ],
)
def test_an_error_has_the_request_and_systemd_s_answer(
    address: str, manager: Manager, answer: str, kind: type[JaulaError]
) -> None:
    manager.answers["StartTransientUnit"] = answer
    with connected(address) as systemd, pytest.raises(kind) as caught:
        systemd.start("a.scope", [], 5)
    assert type(caught.value) is kind
    assert caught.value.message == (
        "systemd refused StartTransientUnit a.scope: the manager says no"
    )


def test_a_failed_job_is_an_error_and_resets_the_unit(address: str, manager: Manager) -> None:
    manager.answers["StartTransientUnit"] = "failed"
    with connected(address) as systemd, pytest.raises(JaulaError, match=r"start unit a\.scope: f"):
        systemd.start("a.scope", [], 5)
    assert manager.calls[-1] == ("ResetFailedUnit", ("a.scope",))


def test_stopping_a_missing_unit_does_nothing(address: str, manager: Manager) -> None:
    manager.answers["StopUnit"] = manager.answers["ResetFailedUnit"] = f"{NAME}.NoSuchUnit"
    with connected(address) as systemd:
        systemd.stop("a.scope")
        systemd.reset_failed("a.scope")


def test_a_host_without_a_manager_has_an_error_at_once(address: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot reach systemd"):
        connected(address)  # the bus runs, but no process owns the name
    nowhere = (("/nonexistent/bus", True), ("\0nonexistent", False))
    with pytest.raises(Unavailable, match=r"cannot reach systemd .*/nonexistent/bus"):
        Connection(Address(*nowhere, directory=str(tmp_path / "absent")))


def test_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "tcp:host=x;unix:abstract=/a,guid=1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert Address.user().sockets == (("\0/a", True), ("/run/user/7/systemd/private", False))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    assert Address.user().sockets[0] == ("/run/user/7/bus", True)
    assert Address.user().directory == "/run/user/7/systemd"
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    assert Address.system().sockets[0] == ("/run/dbus/system_bus_socket", True)
