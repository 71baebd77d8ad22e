"""Start an engine when the default socket does not answer: root's, or that of an unprivileged user.

Because of this, one command works on a fresh machine. Where systemd's units are installed, the
socket answers and this module is not imported.
"""

from __future__ import annotations

import fcntl
import os
import sys
from time import monotonic, sleep

from jaula.cli.cli_errors import Unreachable
from jaula.rootless import xdg_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.client.http_client import SocketAddress

START_TIMEOUT = 10.0  # seconds for the engine to answer
ROOTLESS_START_TIMEOUT = 60.0  # seconds; a rootless engine starts helpers and waits for systemd
INTERVAL = 0.02  # seconds between two attempts
ROOTLESS_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"),
    "DBUS_SESSION_BUS_ADDRESS",
)
"""Variables of the client that a rootless engine inherits."""


def start(address: SocketAddress, error: OSError) -> None:
    """Start ``jaula daemon`` in the background and wait until it answers at ``address``.

    ``error`` is why the socket did not answer. Clients that run at the same time start one engine.

    :raises Unreachable: when the engine cannot be started, with the last line of its log.
    """
    run, root = xdg_paths.run(), xdg_paths.root()
    try:
        os.makedirs(run, mode=0o711, exist_ok=True)
        os.makedirs(root, mode=0o711, exist_ok=True)
    except OSError as failure:
        raise Unreachable(
            f"cannot start an engine: {failure.filename}: {failure.strerror}: set XDG_DATA_HOME "
            "and XDG_RUNTIME_DIR, or select another engine with --host or JAULA_HOST"
        ) from None
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock = os.open(os.path.join(run, "autostart.lock"), flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _answers(address):
            _start(address)
    finally:
        os.close(lock)


def _answers(address: SocketAddress) -> bool:
    try:
        address.connect().close()
    except OSError:
        return False
    return True


def _start(address: SocketAddress) -> None:
    log_path = os.path.join(xdg_paths.root(), "engine.log")
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    begin = os.lseek(log, 0, os.SEEK_END)
    pid = _spawn(log)
    os.close(log)
    timeout = START_TIMEOUT if os.geteuid() == 0 else ROOTLESS_START_TIMEOUT
    deadline = monotonic() + timeout
    while monotonic() < deadline:
        if _answers(address):
            return
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            last = _last_line(log_path, begin) or f"exit status {code}"
            raise Unreachable(f"the engine did not start: {last} (see {log_path})")
        sleep(INTERVAL)
    raise Unreachable(
        f"the engine does not answer at {address.text} after {timeout:.0f} seconds: "
        f"{_last_line(log_path, begin) or 'its log is empty'} (see {log_path})"
    )


def _spawn(log: int) -> int:
    """Spawn the engine in a session of its own, with the log as output, and return its pid.

    The engine inherits no other descriptor of the client.
    """
    import jaula

    main = os.path.join(os.path.dirname(os.path.abspath(jaula.__file__)), "__main__.py")
    arguments = [sys.executable, "-I", "-S", "-X", "utf8", main, "daemon"]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    pid = os.posix_spawn(
        sys.executable,
        arguments,
        _environment(),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
            *((os.POSIX_SPAWN_CLOSE, number) for number in _inherited(null, log)),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[1, 2, 3, 13, 15],
    )
    os.close(null)
    return pid


def _environment() -> dict[str, str]:
    path = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    if os.geteuid() == 0:
        return {"PATH": path, "HOME": "/root"}
    return {"PATH": path} | {
        name: os.environ[name] for name in ROOTLESS_ENVIRONMENT if name in os.environ
    }


def _inherited(*own: int) -> list[int]:
    """Return the descriptors that leaked from the shell and that the engine must not inherit."""
    leaked = []
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            inheritable = os.get_inheritable(number)
        except OSError:
            continue  # the listing's own descriptor
        if number > 2 and number not in own and inheritable:
            leaked.append(number)
    return leaked


def _last_line(path: str, begin: int) -> str:
    with open(path, "rb") as file:
        file.seek(begin)
        lines = file.read()[-65536:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
