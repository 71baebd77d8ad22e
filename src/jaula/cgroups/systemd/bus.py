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
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar

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
RETRY_TIMEOUT = 10.0  # seconds for all further attempts of one call, from its first failure
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5  # seconds between two attempts
_JOB_POLL = 1.0  # seconds without a signal of a job, then its state is read
_NAME = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _NAME, f"{_NAME}.Manager")
_PROPERTIES = DBusAddress("/org/freedesktop/systemd1", _NAME, "org.freedesktop.DBus.Properties")
_BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_UNIT = f"{_NAME}.Unit"
_JOB_REMOVED = f"type='signal',sender='{_NAME}',interface='{_NAME}.Manager',member='JobRemoved'"
_ABSENT = ("NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected")  # names of errors

T = TypeVar("T")


class _Absent(Exception):
    """The manager did not take the call, or went before it answered; the text says how."""


class Address:
    """Sockets to try in order: (path or abstract name, whether a bus listens there).

    ``directory`` exists if the manager runs, also while it executes itself again (sd_booted(3)).
    """

    def __init__(self, *sockets: tuple[str, bool], directory: str = "/run/systemd/system") -> None:
        self.sockets = sockets
        self.directory = directory

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
            (configured or f"{directory}/bus", True),
            (f"{directory}/systemd/private", False),
            directory=f"{directory}/systemd",
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

    A call is repeated while the manager is absent. Every method raises ``Unavailable`` after
    :data:`TIMEOUT`, or :data:`RETRY_TIMEOUT` after the first attempt without a manager.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._serial = 0
        self._parser = Parser()
        self._finished: dict[str, str] = {}  # job to result
        self._socket: socket.socket | None = None
        self._answered = False  # by the manager, once
        self._absences = 0
        self._limit: float | None = None  # monotonic time of the end of further attempts
        self._persist("a connection", lambda: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    def manager_property(self, name: str) -> str:
        """Return a string property of the manager."""
        return str(self._property(_MANAGER.object_path, _MANAGER.interface, name))

    def cgroup(self, unit: str) -> str:
        """Return the path of a unit's cgroup; "" if it has none or is not loaded.

        If its start has not ended, wait for that.
        """
        interface = f"{_NAME}.{unit.rpartition('.')[2].capitalize()}"
        try:
            if path := self._property(self._unit(unit), interface, "ControlGroup"):
                return str(path)
            self._wait("", unit, wanted="active")
            return str(self._property(self._unit(unit), interface, "ControlGroup"))
        except NotFound:
            return ""

    def start(self, unit: str, properties: Iterable[UnitProperty], pid: int | None) -> None:
        """Start a transient unit and wait until it is active.

        ``pid`` is the process in ``properties`` that the unit begins with, None for a slice.

        :raises Conflict: when a unit with this name exists.
        """
        absences = self._absences
        body: tuple[Any, ...] = (unit, "fail", [p.wire() for p in properties], [])
        try:
            (job,) = self._call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        except Conflict:
            # An attempt without an answer may have created it.
            if self._absences == absences or not self._owns(unit, pid):
                raise
            return
        result = self._wait(job, unit, wanted="active")
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
        self._wait(job, unit, wanted="inactive")

    def reset_failed(self, unit: str) -> None:
        """Make systemd unload a failed unit."""
        try:
            self._call(_MANAGER, "ResetFailedUnit", "s", (unit,))
        except NotFound:
            return

    def _owns(self, unit: str, pid: int | None) -> bool:
        """Return whether the unit was started with our process, after its job has ended."""
        if pid is None:
            return False
        self._wait("", unit, wanted="active")
        try:
            return bool(self._call(_MANAGER, "GetUnitByPID", "u", (pid,))[0] == self._unit(unit))
        except NotFound:
            return False

    def _unit(self, unit: str) -> str:
        """Return the object of a loaded unit.

        :raises NotFound: when it is not loaded.
        """
        return str(self._call(_MANAGER, "GetUnit", "s", (unit,))[0])

    def _property(self, path: str, interface: str, name: str) -> Any:
        address = DBusAddress(path, _NAME, "org.freedesktop.DBus.Properties")
        ((_, value),) = self._call(address, "Get", "ss", (interface, name))
        return value

    def _call(
        self, address: DBusAddress, method: str, signature: str = "", body: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        """Return the body of the answer; the call may be made more than once."""
        asked = f"{method} {body[0]}" if body else method
        return self._persist(asked, lambda: self._exchange(address, method, signature, body))

    def _persist(self, asked: str, attempt: Callable[[], T]) -> T:
        """Return what ``attempt`` returns; repeat it, with a new connection, without a manager."""
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    if self._socket is None:
                        self._connect()
                    return attempt()
                except _Absent as error:
                    self._disconnect()
                    self._absences += 1
                    if not self._answered and not os.path.isdir(self._address.directory):
                        raise _unreachable(str(error)) from error
                    now = time.monotonic()
                    if self._limit is None:
                        self._limit = now + RETRY_TIMEOUT
                    if now + pause >= self._limit:
                        raise Unavailable(
                            f"asked systemd for {asked}, but it was away for "
                            f"{RETRY_TIMEOUT:.0f} seconds: {error}",
                            hint="it executes itself again, for example in an upgrade: try again "
                            "when `systemctl is-system-running` answers",
                        ) from error
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._limit = None

    def _connect(self) -> None:
        """Connect, authenticate, and subscribe to the manager's signals."""
        self._parser = Parser()
        self._socket, on_bus = _connected(self._address)
        try:
            self._socket.settimeout(max(self._deadline() - time.monotonic(), _FIRST_PAUSE))
            try:
                _authenticate(self._socket)
            except TimeoutError as error:
                raise self._silence("the authentication") from error
            if on_bus:
                self._exchange(_BUS, "Hello")
                self._exchange(_BUS, "AddMatch", "s", (_JOB_REMOVED,))
            self._exchange(_MANAGER, "Subscribe")
        except BaseException:
            self._disconnect()
            raise
        self._answered = True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(
        self, address: DBusAddress, method: str, signature: str = "", body: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        """Make a call once.

        :raises _Absent: when the manager did not answer it.
        """
        message = new_method_call(address, method, signature or None, body)
        self._serial += 1
        deadline = self._deadline()
        try:
            assert self._socket is not None
            self._socket.settimeout(max(deadline - time.monotonic(), _FIRST_PAUSE))
            self._socket.sendall(message.serialise(serial=self._serial))
            while (answer := self._receive(deadline)) is not None:
                if answer.header.fields.get(HeaderFields.reply_serial) == self._serial:
                    break
        except OSError as error:
            raise _Absent(f"{method}: {error}") from error
        if answer is None:
            raise self._silence(method)
        if answer.header.message_type is MessageType.error:
            raise _refused(method, answer, body[0] if body else "")
        return tuple(answer.body)

    def _deadline(self) -> float:
        """Return the monotonic time until which the next answer is waited for."""
        deadline = time.monotonic() + TIMEOUT
        return deadline if self._limit is None else min(deadline, self._limit)

    def _silence(self, asked: str) -> Unavailable | _Absent:
        """Return the error of a call without an answer; in a further attempt, it is the last."""
        if self._limit is not None:
            return _Absent(f"{asked} has no answer")
        return Unavailable(f"systemd did not answer within {TIMEOUT:.0f} seconds: {asked}")

    def _receive(self, deadline: float) -> Message | None:
        """Return the next message, None after the deadline; record the result of a finished job."""
        assert self._socket is not None
        while (message := self._parser.get_next_message()) is None:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            self._socket.settimeout(remaining)
            try:
                data = self._socket.recv(8192)
            except TimeoutError:
                return None
            if not data:
                raise ConnectionResetError("the connection was closed")
            self._parser.add_data(data)
        if message.header.fields.get(HeaderFields.member) == "JobRemoved":
            _, job, _, result = message.body
            self._finished[job] = result
        return message

    def _wait(self, job: str, unit: str, *, wanted: str) -> str:
        """Return the result of a job: "done" or another word of systemd.

        Without a signal it is "done" if the unit is ``wanted`` and has no job any more, else the
        state of the unit.
        """
        deadline = time.monotonic() + TIMEOUT
        signal_by = time.monotonic() + _JOB_POLL if job else 0.0
        while job not in self._finished:
            try:
                if self._socket is not None and self._receive(min(signal_by, deadline)) is not None:
                    continue
            except OSError:
                self._disconnect()
            state = self._settled(unit)
            if job in self._finished:
                break
            if state:
                return "done" if state == wanted else state
            now = time.monotonic()
            if now >= deadline:
                raise Unavailable(
                    f"systemd did not answer within {TIMEOUT:.0f} seconds: the job of {unit}"
                )
            signal_by = now + _JOB_POLL
        return self._finished.pop(job)

    def _settled(self, unit: str) -> str:
        """Return the state of a unit without a job, else ""."""
        try:
            path = self._unit(unit)
            id, _ = self._property(path, _UNIT, "Job")  # first: the job sets the state
            if id:
                return ""
            return str(self._property(path, _UNIT, "ActiveState"))
        except NotFound:
            return "inactive"


def _connected(address: Address) -> tuple[socket.socket, bool]:
    """Return a connected socket, and whether a bus is behind it.

    :raises _Absent: when no socket can be connected to at this moment.
    """
    problems: list[str] = []
    refused = False
    for path, on_bus in address.sockets:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            problems.append(f"{path.replace(chr(0), '@')}: {error.strerror}")
            refused = refused or isinstance(error, PermissionError)
            continue
        return connection, on_bus
    text = "; ".join(problems)
    raise _unreachable(text) if refused else _Absent(text)


def _unreachable(text: str) -> Unavailable:
    return Unavailable(
        f"cannot reach systemd ({text})",
        hint="is systemd the init of this host? if not, do not select systemd cgroups",
    )


def _authenticate(connection: socket.socket) -> None:
    """Authenticate as the peer's view of this process; no uid is sent.

    :raises _Absent: when the peer closes the connection.
    :raises TimeoutError: when it does not answer within the timeout of the socket.
    """
    try:
        connection.sendall(b"\0AUTH EXTERNAL\r\n")
        answer = connection.recv(512)
        if answer.startswith(b"DATA"):
            connection.sendall(b"DATA\r\n")
            answer = connection.recv(512)
        if answer and not answer.startswith(b"OK"):
            raise NotAuthorized(f"D-Bus refused to authenticate: {answer[:80].decode('latin1')!r}")
        if not answer:
            raise ConnectionResetError("the connection was closed")
        connection.sendall(b"BEGIN\r\n")
    except TimeoutError:
        raise
    except OSError as error:
        raise _Absent(f"D-Bus did not answer: {error}") from error


def _refused(method: str, answer: Message, argument: str) -> JaulaError | _Absent:
    name = str(answer.header.fields.get(HeaderFields.error_name, ""))
    text = str(answer.body[0]) if answer.body else name
    message = f"systemd refused {method} {argument}: {text}"
    kind = name.rpartition(".")[2]
    if kind in _ABSENT:
        return _Absent(text)
    if kind == "UnitExists":
        return Conflict(message)
    if kind in ("NoSuchUnit", "UnitNotLoaded", "UnknownObject", "NoUnitForPID"):
        return NotFound(message)
    if kind in ("AccessDenied", "InteractiveAuthorizationRequired"):
        return NotAuthorized(message)
    if kind in ("InvalidArgs", "PropertyReadOnly", "BadUnitSetting", "UnknownProperty"):
        return InvalidRequest(message)
    return JaulaError(message)
