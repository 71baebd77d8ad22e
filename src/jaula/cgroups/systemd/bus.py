"""D-Bus calls to the systemd manager, as far as a container's scope needs them.

Source: org.freedesktop.systemd1(5); D-Bus Specification, "Authentication Protocol". jeepney encodes
and decodes messages; this module owns the socket, for two reasons. The manager's private socket,
which works without a bus, has no greeting. Inside a user namespace the process's own uid is not the
one that the bus sees, so the bus must determine it (``EXTERNAL`` without an id).

Importing jeepney takes 15 ms if nothing else is loaded, so only this module imports it, and this
module is imported only for systemd. A connection lasts for one operation: the processes of the
runtime fork, and two readers of one connection would lose replies.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from typing import Any, Self

from jeepney import DBusAddress, new_method_call
from jeepney.low_level import HeaderFields, Message, MessageType, Parser

from jaula.cgroups.systemd.properties import UnitProperty
from jaula.errors import (
    Conflict,
    InvalidRequest,
    JaulaError,
    NotAuthorized,
    NotFound,
    Unavailable,
)

TIMEOUT = 30.0  # seconds for one call, or for one job
_NAME = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _NAME, f"{_NAME}.Manager")
_PROPERTIES = DBusAddress("/org/freedesktop/systemd1", _NAME, "org.freedesktop.DBus.Properties")
_BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_JOB_REMOVED = f"type='signal',sender='{_NAME}',interface='{_NAME}.Manager',member='JobRemoved'"


class Address:
    """Sockets to try in order: (path or abstract name, whether a bus listens there)."""

    def __init__(self, *sockets: tuple[str, bool]) -> None:
        self.sockets = sockets

    @classmethod
    def system(cls) -> Address:
        """Return the system bus, or the manager's private socket without a bus."""
        configured = _path(os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", ""))
        return cls(
            (configured or "/run/dbus/system_bus_socket", True), ("/run/systemd/private", False)
        )

    @classmethod
    def user(cls) -> Address:
        """Return the user's session bus, or the user manager's private socket."""
        directory = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        configured = _path(os.environ.get("DBUS_SESSION_BUS_ADDRESS", ""))
        return cls(
            (configured or f"{directory}/bus", True), (f"{directory}/systemd/private", False)
        )


def _path(addresses: str) -> str:
    """Return the first unix socket in a list of D-Bus addresses, or ""."""
    for address in addresses.split(";"):
        transport, _, rest = address.partition(":")
        keys = dict(pair.partition("=")[::2] for pair in rest.split(","))
        if transport == "unix" and keys.get("path"):
            return keys["path"]
        if transport == "unix" and keys.get("abstract"):
            return "\0" + keys["abstract"]
    return ""


class Connection:
    """A connection to the manager; use ``with``.

    Every method raises ``Unavailable`` after :data:`TIMEOUT`.
    """

    def __init__(self, address: Address) -> None:
        self._serial = 0
        self._parser = Parser()
        self._finished: dict[str, str] = {}  # job to result
        self._socket, on_bus = _connect(address)
        try:
            _authenticate(self._socket)
            if on_bus:
                self._call(_BUS, "Hello")
                self._call(_BUS, "AddMatch", "s", (_JOB_REMOVED,))
            self._call(_MANAGER, "Subscribe")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def manager_property(self, name: str) -> str:
        """Return a string property of the manager."""
        ((_, value),) = self._call(_PROPERTIES, "Get", "ss", (_MANAGER.interface, name))
        return str(value)

    def start(self, unit: str, properties: Iterable[UnitProperty]) -> None:
        """Start a transient unit and wait until it is active.

        :raises Conflict: when a unit with this name exists.
        """
        body: tuple[Any, ...] = (unit, "fail", [p.wire() for p in properties], [])
        (job,) = self._call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        result = self._wait(job, unit)
        if result != "done":
            self.reset_failed(unit)
            raise JaulaError(f"systemd could not start unit {unit}: {result}")

    def set(self, unit: str, properties: Iterable[UnitProperty]) -> None:
        """Set runtime properties of a unit, until the next boot."""
        body = (unit, True, [p.wire() for p in properties])
        self._call(_MANAGER, "SetUnitProperties", "sba(sv)", body)

    def attach(self, unit: str, below: str, pid: int) -> None:
        """Move a process into a cgroup below a unit with delegation."""
        self._call(_MANAGER, "AttachProcessesToUnit", "ssau", (unit, below, [pid]))

    def stop(self, unit: str) -> None:
        """Stop a unit and wait for it; an absent unit is not an error."""
        try:
            (job,) = self._call(_MANAGER, "StopUnit", "ss", (unit, "replace"))
        except NotFound:
            return
        self._wait(job, unit)

    def reset_failed(self, unit: str) -> None:
        """Make systemd unload a failed unit."""
        try:
            self._call(_MANAGER, "ResetFailedUnit", "s", (unit,))
        except NotFound:
            return

    def _call(
        self, address: DBusAddress, method: str, signature: str = "", body: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        message = new_method_call(address, method, signature or None, body)
        self._serial += 1
        try:
            self._socket.sendall(message.serialise(serial=self._serial))
            deadline = time.monotonic() + TIMEOUT
            while True:
                answer = self._receive(deadline, method)
                if answer.header.fields.get(HeaderFields.reply_serial) == self._serial:
                    break
        except OSError as error:
            raise Unavailable(f"systemd did not answer {method}: {error}") from error
        if answer.header.message_type is MessageType.error:
            raise _refused(method, answer, body[0] if body else "")
        return tuple(answer.body)

    def _receive(self, deadline: float, operation: str) -> Message:
        """Return the next message; record the result of a finished job."""
        while (message := self._parser.get_next_message()) is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise Unavailable(
                    f"systemd did not answer within {TIMEOUT:.0f} seconds: {operation}"
                )
            self._socket.settimeout(remaining)
            data = self._socket.recv(8192)
            if not data:
                raise ConnectionResetError("the connection was closed")
            self._parser.add_data(data)
        if message.header.fields.get(HeaderFields.member) == "JobRemoved":
            _, job, _, result = message.body
            self._finished[job] = result
        return message

    def _wait(self, job: str, unit: str) -> str:
        deadline = time.monotonic() + TIMEOUT
        while job not in self._finished:
            try:
                self._receive(deadline, f"the job of {unit}")
            except OSError as error:
                raise Unavailable(f"lost systemd during the job of {unit}: {error}") from error
        return self._finished.pop(job)


def _connect(address: Address) -> tuple[socket.socket, bool]:
    problems: list[str] = []
    for path, on_bus in address.sockets:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            problems.append(f"{path.replace(chr(0), '@')}: {error.strerror}")
            continue
        return connection, on_bus
    raise Unavailable(
        f"cannot reach systemd ({'; '.join(problems)})",
        hint="is systemd the init of this host? if not, do not select systemd cgroups",
    )


def _authenticate(connection: socket.socket) -> None:
    """Authenticate as the peer's view of this process; no uid is sent."""
    try:
        connection.sendall(b"\0AUTH EXTERNAL\r\n")
        answer = connection.recv(512)
        if answer.startswith(b"DATA"):
            connection.sendall(b"DATA\r\n")
            answer = connection.recv(512)
        if not answer.startswith(b"OK"):
            raise NotAuthorized(f"D-Bus refused to authenticate: {answer[:80].decode('latin1')!r}")
        connection.sendall(b"BEGIN\r\n")
    except OSError as error:
        raise Unavailable(f"D-Bus did not answer: {error}") from error


def _refused(method: str, answer: Message, argument: str) -> JaulaError:
    name = str(answer.header.fields.get(HeaderFields.error_name, ""))
    text = str(answer.body[0]) if answer.body else name
    message = f"systemd refused {method} {argument}: {text}"
    kind = name.rpartition(".")[2]
    if kind == "UnitExists":
        return Conflict(message)
    if kind in ("NoSuchUnit", "UnitNotLoaded"):
        return NotFound(message)
    if kind in ("AccessDenied", "InteractiveAuthorizationRequired"):
        return NotAuthorized(message)
    if kind in ("InvalidArgs", "PropertyReadOnly", "BadUnitSetting", "UnknownProperty"):
        return InvalidRequest(message)
    return JaulaError(message)
