"""Starting an engine when none answers on the default socket: root's, or an ordinary user's own.

One command works on a fresh machine because of this; where systemd's units are installed, the
socket answers and nothing here is imported.
"""

from __future__ import annotations

import fcntl
import os
import sys
from time import monotonic, sleep

from jaula.cli.errors import Unreachable
from jaula.rootless import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.client.http import SocketAddress

PATIENCE = 10.0  # seconds for the engine to answer
USER_PATIENCE = 60.0  # an ordinary user's has helpers and systemd to ask before
INTERVAL = 0.02
KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"),
    "DBUS_SESSION_BUS_ADDRESS",
)
"""What an ordinary user's engine has of its starter's environment."""


def start(address: SocketAddress, error: OSError) -> None:
    """Start ``jaula daemon`` in the background and wait until it answers at ``address``.

    ``error`` is why the socket did not. Clients that come together start one engine. Raises
    Unreachable where it cannot be started, with the last line that it wrote.
    """
    run, root = paths.run(), paths.root()
    try:
        os.makedirs(run, mode=0o711, exist_ok=True)
        os.makedirs(root, mode=0o711, exist_ok=True)
    except OSError as failure:
        raise Unreachable(
            f"cannot start an engine: {failure.filename}: {failure.strerror}: set XDG_DATA_HOME "
            "and XDG_RUNTIME_DIR, or name another engine with --host or JAULA_HOST"
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
    log_path = os.path.join(paths.root(), "engine.log")
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    begin = os.lseek(log, 0, os.SEEK_END)
    pid = _spawn(log)
    os.close(log)
    patience = PATIENCE if os.geteuid() == 0 else USER_PATIENCE
    deadline = monotonic() + patience
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
        f"the engine does not answer at {address.text} after {patience:.0f} seconds: "
        f"{_last_line(log_path, begin) or 'it has written nothing'} (see {log_path})"
    )


def _spawn(log: int) -> int:
    """The engine's process: session of its own, no descriptor of this client's, log as output."""
    import jaula

    main = os.path.join(os.path.dirname(os.path.abspath(jaula.__file__)), "__main__.py")
    words = [sys.executable, "-I", "-S", "-X", "utf8", main, "daemon"]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    pid = os.posix_spawn(
        sys.executable,
        words,
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
    return {"PATH": path} | {name: os.environ[name] for name in KEPT if name in os.environ}


def _inherited(*ours: int) -> list[int]:
    """Descriptors that the shell leaked into this client and the engine must not keep."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            inheritable = os.get_inheritable(number)
        except OSError:
            continue  # the listing's own descriptor
        if number > 2 and number not in ours and inheritable:
            found.append(number)
    return found


def _last_line(path: str, begin: int) -> str:
    with open(path, "rb") as file:
        file.seek(begin)
        lines = file.read()[-65536:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
