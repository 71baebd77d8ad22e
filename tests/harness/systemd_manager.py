"""A manager of units that speaks D-Bus as systemd does, and executes itself again when told to."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from jeepney import DBusAddress, MessageType, new_error, new_method_return, new_signal
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, DBusConnectionBase, Proxy, prep_socket

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
AWAY = 0.3  # seconds

BEFORE, AFTER, UNSIGNALLED, GONE, SILENT = "before", "after", "unsignalled", "gone", "silent"
"""When the manager executes itself again: before a call has an effect, after it and without an
answer, after the answer and without the signal of the job, before the effect and for ever. A silent
manager does nothing."""


@dataclass
class Unit:
    pids: list[int] = field(default_factory=list)
    cgroup: str = ""
    state: str = "active"
    pending: int = 0  # reads of the unit's job until it has ended


class Manager(threading.Thread):
    """A manager on a bus.

    ``answers`` has by method the result of a job, or the name of an error. ``interruptions`` has by
    method what happens in its next calls; ``pending`` is that of units that are started.
    """

    def __init__(self, socket: str) -> None:
        super().__init__(daemon=True)
        self.socket = socket
        self.calls: list[tuple[str, Any]] = []
        self.answers: dict[str, str] = {}
        self.interruptions: dict[str, list[str]] = {}
        self.units: dict[str, Unit] = {}
        self.pending = 0
        self.executions = 0
        self.ended = False
        self.connect()

    def connect(self) -> None:
        self.connection = DBusConnection(prep_socket(self.socket))
        Proxy(message_bus, self.connection).RequestName(NAME)

    def receive(self) -> Any:
        return self.connection.receive()

    def send(self, message: Any) -> None:
        self.connection.send(message)

    def shut_down(self) -> None:
        """End the calls of the thread."""
        with contextlib.suppress(OSError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)

    def disconnect(self) -> None:
        self.connection.close()

    def run(self) -> None:
        while not self.ended:
            try:
                message = self.receive()
            except (OSError, ValueError):
                return
            if message.header.message_type is MessageType.method_call:
                self.answer(message)

    def end(self) -> None:
        gone, self.ended = self.ended, True
        self.shut_down()
        self.join(5)
        if not gone:
            self.disconnect()

    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]

    def answer(self, message: Any) -> None:
        method, body = message.header.fields[3], message.body
        self.calls.append((method, body))
        moment = next(iter(self.interruptions.get(method, [])), "")
        if moment:
            self.interruptions[method].pop(0)
        if moment in (BEFORE, GONE):
            self.execute_again(stay_away=moment == GONE)
            return
        messages = [] if moment == SILENT else self.effect(message, method, body)
        if moment == AFTER:
            self.execute_again()
            return
        if moment == UNSIGNALLED:
            messages = messages[-1:]
        for each in messages:
            self.send(each)
        if moment == UNSIGNALLED:
            self.execute_again()

    def execute_again(self, *, stay_away: bool = False) -> None:
        self.executions += 1
        self.ended = stay_away
        self.disconnect()
        if stay_away:
            return
        time.sleep(AWAY)
        self.connect()

    def effect(self, message: Any, method: str, body: Any) -> list[Any]:
        """Do what a call asks for; return the signal of a job, if there is one, and the answer."""
        answer = self.answers.get(method, "done")
        if "." in answer:
            return [new_error(message, answer, "s", ("the manager says no",))]
        if method == "StartTransientUnit":
            name, _, properties, _ = body
            if name in self.units:
                return [self.error(message, "UnitExists")]
            values = {key: value for key, (_, value) in properties}
            parent = values.get("Slice") or values.get("Wants", ["x.slice"])[0]
            state = "active" if answer == "done" else "failed"
            self.units[name] = Unit(
                values.get("PIDs", []), f"/{parent}/{name}", state, self.pending
            )
            return self.job(message, name, answer)
        if method == "StopUnit":
            if self.units.pop(body[0], None) is None:
                return [self.error(message, "NoSuchUnit")]
            return self.job(message, body[0], answer)
        if method in ("GetUnit", "GetUnitByPID", "SetUnitProperties", "AttachProcessesToUnit"):
            for name, unit in self.units.items():
                if body[0] == name or (unit.pending == 0 and body[0] in unit.pids):
                    if "Get" in method:
                        return [new_method_return(message, "o", (path(name),))]
                    return [new_method_return(message)]
            return [self.error(message, "NoUnitForPID" if "PID" in method else "NoSuchUnit")]
        if method == "Get":
            return [new_method_return(message, "v", (self.value(message, body[1]),))]
        return [new_method_return(message)]

    def value(self, message: Any, name: str) -> tuple[str, Any]:
        object_path = message.header.fields[1]
        found = [unit for each, unit in self.units.items() if path(each) == object_path]
        unit = found[0] if found else Unit(state="inactive")
        if name == "Job":
            unit.pending = max(unit.pending - 1, 0)
            return "(uo)", (7, "/job/7") if unit.pending else (0, "/")
        cgroup = "" if unit.pending else unit.cgroup
        return "s", {"ActiveState": unit.state, "ControlGroup": cgroup}.get(name, "257.1")

    def job(self, message: Any, unit: str, result: str) -> list[Any]:
        job = f"/job/{len(self.calls)}"
        body = (len(self.calls), job, unit, result)
        # The signal first, as may happen: the answer names a job that has already ended.
        return [
            new_signal(MANAGER, "JobRemoved", "uoss", body),
            new_method_return(message, "o", (job,)),
        ]

    def error(self, message: Any, name: str) -> Any:
        return new_error(message, f"{NAME}.{name}", "s", ("the manager says no",))


class PrivateManager(Manager):
    """A manager behind its private socket, which serves one connection at a time."""

    def connect(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket)
        self.listener.listen()
        self.peer: DBusConnectionBase | None = None

    def receive(self) -> Any:
        while True:
            if self.peer is None:
                self.peer = DBusConnectionBase(self.accept())
            try:
                return self.peer._receive(None)
            except ConnectionResetError:
                self.peer.close()
                self.peer = None

    def accept(self) -> socket.socket:
        peer, _ = self.listener.accept()
        line = b""
        while not line.endswith(b"BEGIN\r\n"):
            line += peer.recv(1)
            if line == b"\0AUTH EXTERNAL\r\n":
                peer.sendall(b"OK 0\r\n")
        return peer

    def send(self, message: Any) -> None:
        assert self.peer is not None
        self.peer.sock.sendall(message.serialise(serial=next(self.peer.outgoing_serial)))

    def shut_down(self) -> None:
        for each in (self.listener, self.peer.sock if self.peer else None):
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def disconnect(self) -> None:
        self.listener.close()
        os.unlink(self.socket)
        if self.peer is not None:
            self.peer.close()


def path(unit: str) -> str:
    """Return the object of a unit; systemd escapes all but letters and digits."""
    escaped = "".join(each if each.isalnum() else f"_{ord(each):02x}" for each in unit)
    return f"/org/freedesktop/systemd1/unit/{escaped}"
