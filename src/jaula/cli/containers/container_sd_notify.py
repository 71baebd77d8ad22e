"""``--sdnotify``: messages about a container to the service manager.

Source: sd_notify(3), sd_watchdog_enabled(3), podman-run(1). The modes are podman's:

* ``conmon``: the service is ready when the container runs;
* ``container``: the program in the container says so, by a socket of its own;
* ``healthy``: when its health check succeeds for the first time;
* ``ignore``: the service manager hears nothing.

Facts about sd_notify: ``MAINPID=`` and descriptors that a container sends would concern processes
and files of the host, so the client drops them. It passes on what describes the program. The
sender has to be a process of the service's cgroup; a container's processes are in another one.
"""

from __future__ import annotations

import _socket
import _thread
import sys
from posix import (
    O_CLOEXEC,
    chmod,
    close,
    geteuid,
    getpid,
    kill,
    listdir,
    mkdir,
    pipe2,
    rmdir,
    unlink,
    write,
)
from select import POLLIN, poll

from jaula.cli.cli_errors import CliError, EngineError, Unreachable, UsageError
from jaula.cli.environ import text as environ_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from jaula.cli.client.api_client import Client

MODES = ("conmon", "container", "healthy", "ignore")
VARIABLE, WATCHDOG = "NOTIFY_SOCKET", "WATCHDOG_USEC"
MOUNT_POINT, NAME = "/run/notify", "notify.sock"
_PREFIX = "jaula-notify-"
_MAX_MESSAGE = 4096  # bytes, as of systemd
_BARRIER_SECONDS = 5.0
_SEND_SECONDS = 5.0  # in which the service manager has to read a message
_HEALTH_SECONDS = 0.3  # between two looks at a container that is not healthy yet
_RELAYED = (
    b"READY", b"RELOADING", b"STOPPING", b"STATUS", b"ERRNO", b"BUSERROR", b"EXIT_STATUS",
    b"WATCHDOG", b"WATCHDOG_USEC", b"EXTEND_TIMEOUT_USEC", b"MONOTONIC_USEC",
)  # fmt: skip


def relayed(message: bytes) -> bytes:
    """Return the lines of a container's message that the service manager gets. Pure."""
    lines = (line for line in message.split(b"\n") if line.partition(b"=")[0] in _RELAYED)
    return b"\n".join(line for line in lines if b"\0" not in line)


def notifier(mode: str) -> Notifier | None:
    """Return the notifier for a mode, None if no service manager waits for messages.

    :raises UsageError: when the mode is unknown.
    :raises CliError: when the service manager cannot be reached.
    """
    if mode not in MODES:
        raise UsageError(
            f'invalid argument "{mode}" for "--sdnotify" flag: must be one of {", ".join(MODES)}'
        )
    address = environ_text(VARIABLE)
    if mode == "ignore" or not address:
        return None
    if address[0] not in "/@":
        raise CliError(f"{VARIABLE}: {address[:64]!r} is not a Unix socket", status=125)
    watchdog = environ_text(WATCHDOG)
    return Notifier(mode, address, int(watchdog) if watchdog.isdigit() else 0)


class Notifier:
    """The messages about one container to the service manager at ``address``.

    ``watchdog`` is the time in microseconds in which the manager expects a sign of life, 0 if it
    expects none.
    """

    def __init__(self, mode: str, address: str, watchdog: int = 0) -> None:
        self._mode = mode
        self._watchdog = watchdog
        self._manager = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._manager.settimeout(_SEND_SECONDS)
        try:
            self._manager.connect("\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            raise CliError(f"{VARIABLE}: {address}: {error.strerror}", status=125) from None
        self._directory = ""
        self._socket: _socket.socket | None = None  # of the container
        self._wake = -1
        self._thread = _thread.allocate_lock()

    # -- before the container --------------------------------------------------------------------

    def prepare(self, body: dict[str, Any]) -> None:
        """Give the container of ``body`` a socket, if its program is to send the messages."""
        if self._mode != "container":
            return
        base = "/run" if geteuid() == 0 else environ_text("XDG_RUNTIME_DIR")
        if not base:
            raise CliError("--sdnotify=container needs XDG_RUNTIME_DIR", status=125)
        _remove_stale(base)
        self._directory = f"{base}/{_PREFIX}{getpid()}"
        mkdir(self._directory, 0o755)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        path = f"{self._directory}/{NAME}"
        self._socket.bind(path)
        chmod(path, 0o777)  # any user of the container may connect
        host = body["HostConfig"]
        host.setdefault("Binds", []).append(f"{self._directory}:{MOUNT_POINT}:ro")
        variables = body.setdefault("Env", [])
        variables.append(f"{VARIABLE}={MOUNT_POINT}/{NAME}")
        if self._watchdog:
            variables.append(f"{WATCHDOG}={self._watchdog}")

    def check(self, client: Client, container: str) -> None:
        """Check that the container can become healthy, if that is the mode.

        :raises CliError: when it has no health check.
        """
        if self._mode != "healthy":
            return
        test = (_inspect(client, container)["Config"].get("Healthcheck") or {}).get("Test")
        if not test or test == ["NONE"]:
            raise CliError("--sdnotify=healthy needs a health check", status=125)

    # -- a container that runs -------------------------------------------------------------------

    def started(self, make_client: Callable[[], Client], container: str) -> None:
        """Send that the container runs, and send what follows from a thread."""
        self.send(f"MAINPID={getpid()}".encode())
        if self._mode == "conmon":
            self.send(b"READY=1")
        if self._mode == "conmon" and not self._watchdog:
            return
        read_end, self._wake = pipe2(O_CLOEXEC)
        self._thread.acquire()
        _thread.start_new_thread(self._run, (make_client, container, read_end))

    @property
    def watched(self) -> bool:
        """Return whether the service manager expects signs of life."""
        return self._watchdog > 0

    def send(self, message: bytes) -> None:
        """Send one message; an error is reported, since the container runs without it."""
        try:
            self._manager.send(message)
        except OSError as error:
            sys.stderr.write(f"jaula: {VARIABLE}: a message is lost: {error.strerror or error}\n")

    def barrier(self) -> None:
        """Wait until the service manager has read all messages, or for some seconds."""
        import array

        read_end, write_end = pipe2(O_CLOEXEC)
        rights = array.array("i", (write_end,))
        try:
            self._manager.sendmsg(
                [b"BARRIER=1"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
            )
        except OSError as error:
            sys.stderr.write(f"jaula: {VARIABLE}: a message is lost: {error.strerror}\n")
            return
        finally:
            close(write_end)
        poller = poll()
        poller.register(read_end, POLLIN)
        poller.poll(_BARRIER_SECONDS * 1000)
        close(read_end)

    def _run(self, make_client: Callable[[], Client], container: str, read_end: int) -> None:
        try:
            self._serve(make_client, container, read_end)
        finally:
            close(read_end)
            self._thread.release()

    def _serve(self, make_client: Callable[[], Client], container: str, read_end: int) -> None:
        """Relay messages, watch the health, and send signs of life until the container ends."""
        poller = poll()
        poller.register(read_end, POLLIN)
        if self._socket is not None:
            poller.register(self._socket.fileno(), POLLIN)
        pings = self._watchdog and self._mode != "container"
        ready = self._mode != "healthy"
        client: Client | None = None
        while True:
            period = self._watchdog / 2e6 if pings else None
            if not ready:
                period = min(period or _HEALTH_SECONDS, _HEALTH_SECONDS)
            ended = any(fd == read_end for fd, _ in poller.poll(period and period * 1000))
            self._relay()
            if ended:
                return
            healthy = True
            if self._mode == "healthy":
                client = client or make_client()
                status = _health(client, container)
                healthy = status != "unhealthy"
                if status == "healthy" and not ready:
                    ready = True
                    self.send(b"READY=1")
            if pings and healthy:
                self.send(b"WATCHDOG=1")

    def _relay(self) -> None:
        while self._socket is not None:
            try:
                message = self._socket.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return
            if lines := relayed(message):
                self.send(lines)

    def leave(self) -> None:
        """Leave the socket of the container to another process that has it."""
        self._socket = None

    def close(self) -> None:
        """Relay what is left, and remove the socket of the container."""
        if self._wake >= 0:
            write(self._wake, b"\0")
            self._thread.acquire()
            close(self._wake)
            self._wake = -1
        self._relay()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            _remove(self._directory)


def _inspect(client: Client, container: str) -> Any:
    return client.get(f"/containers/{container}/json")


def _health(client: Client, container: str) -> str:
    """Return the state of the health check; '' while the engine does not answer."""
    try:
        return str((_inspect(client, container)["State"].get("Health") or {}).get("Status", ""))
    except (EngineError, Unreachable):  # it ends, or the engine starts again
        return ""


def _remove(directory: str) -> None:
    try:
        unlink(f"{directory}/{NAME}")
        rmdir(directory)
    except FileNotFoundError:
        pass


def _remove_stale(base: str) -> None:
    """Remove the sockets of clients that were killed."""
    for name in listdir(base):
        pid = name.removeprefix(_PREFIX)
        if pid == name or not pid.isdigit():
            continue
        try:
            kill(int(pid), 0)
        except ProcessLookupError:
            _remove(f"{base}/{name}")
        except PermissionError:
            continue
