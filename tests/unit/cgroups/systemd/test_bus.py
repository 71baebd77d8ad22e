"""Calls to a manager over a real bus, on which a small service records them."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jeepney import DBusAddress, MessageType, new_error, new_method_return, new_signal
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, Proxy, prep_socket

from jaula.cgroups.systemd.bus import Address, Connection
from jaula.cgroups.systemd.properties import UnitProperty
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, Unavailable

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
CONFIG = """<busconfig><type>session</type><listen>unix:path={socket}</listen>
<auth>EXTERNAL</auth><policy context="default"><allow send_destination="*" eavesdrop="true"/>
<allow own="*"/><allow eavesdrop="true"/></policy></busconfig>"""


class Manager(threading.Thread):
    """A manager that replies by method: the result of a job, or the name of an error."""

    def __init__(self, socket: str) -> None:
        super().__init__(daemon=True)
        self.connection = DBusConnection(prep_socket(socket))
        Proxy(message_bus, self.connection).RequestName(NAME)
        self.calls: list[tuple[str, Any]] = []
        self.answers: dict[str, str] = {}

    def run(self) -> None:
        while True:
            try:
                message = self.connection.receive()
            except (OSError, ValueError):
                return
            if message.header.message_type is MessageType.method_call:
                self.answer(message)

    def answer(self, message: Any) -> None:
        method = message.header.fields[3]
        self.calls.append((method, message.body))
        answer = self.answers.get(method, "done")
        if "." in answer:
            reply = new_error(message, answer, "s", ("the manager says no",))
            self.connection.send(reply)
        elif method in ("StartTransientUnit", "StopUnit"):
            job = f"/job/{len(self.calls)}"
            body = (len(self.calls), job, message.body[0], answer)
            # The signal first, as may happen: the answer names a job that has already ended.
            self.connection.send(new_signal(MANAGER, "JobRemoved", "uoss", body))
            self.connection.send(new_method_return(message, "o", (job,)))
        elif method == "Get":
            self.connection.send(new_method_return(message, "v", (("s", "257.1"),)))
        else:
            self.connection.send(new_method_return(message))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        pytest.fail("dbus-daemon is needed: apt install dbus-daemon")
    path = f"/tmp/jlt-bus-{os.getpid()}"
    config = tmp_path / "bus.conf"
    config.write_text(CONFIG.format(socket=path))
    process = subprocess.Popen(
        [daemon, f"--config-file={config}", "--nofork", "--print-address"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    yield path
    process.kill()
    process.wait()
    process.stdout.close()
    Path(path).unlink(missing_ok=True)


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager(address)
    made.start()
    yield made
    made.connection.sock.shutdown(2)
    made.join(5)
    made.connection.close()


def connected(address: str) -> Connection:
    return Connection(Address(("/nonexistent/bus", True), (address, True)))


def test_a_unit_is_started_changed_and_stopped(address: str, manager: Manager) -> None:
    with connected(address) as systemd:
        assert systemd.manager_property("Version") == "257.1"
        systemd.start(
            "a.scope", [UnitProperty("PIDs", "au", [5]), UnitProperty("Delegate", "b", True)]
        )
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
        systemd.start("a.scope", [])
    assert type(caught.value) is kind
    assert caught.value.message == (
        "systemd refused StartTransientUnit a.scope: the manager says no"
    )


def test_a_failed_job_is_an_error_and_resets_the_unit(address: str, manager: Manager) -> None:
    manager.answers["StartTransientUnit"] = "failed"
    with connected(address) as systemd, pytest.raises(JaulaError, match=r"start unit a\.scope: f"):
        systemd.start("a.scope", [])
    assert manager.calls[-1] == ("ResetFailedUnit", ("a.scope",))


def test_stopping_a_missing_unit_does_nothing(address: str, manager: Manager) -> None:
    manager.answers["StopUnit"] = manager.answers["ResetFailedUnit"] = f"{NAME}.NoSuchUnit"
    with connected(address) as systemd:
        systemd.stop("a.scope")
        systemd.reset_failed("a.scope")


def test_a_closed_connection_is_unavailable(address: str) -> None:
    with pytest.raises(JaulaError, match="systemd"):  # the bus runs, but no process owns the name
        connected(address)
    with pytest.raises(Unavailable, match="cannot reach systemd"):
        Connection(Address(("/nonexistent/bus", True), ("\0nonexistent", False)))


def test_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "tcp:host=x;unix:abstract=/a,guid=1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert Address.user().sockets == (("\0/a", True), ("/run/user/7/systemd/private", False))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    assert Address.user().sockets[0] == ("/run/user/7/bus", True)
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    assert Address.system().sockets[0] == ("/run/dbus/system_bus_socket", True)
