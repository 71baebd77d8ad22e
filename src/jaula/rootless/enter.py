"""Enter the user and network namespace of an ordinary user's engine.

The namespaces of a running namespace holder are joined, since containers of a former engine may be
in them. Otherwise a holder is started. The calling process must have a single thread. Afterwards it
is user 0 with all capabilities over these namespaces. To the rest of the host it is the same user
as before.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaula.errors import JaulaError, Unavailable
from jaula.kernel import namespaces
from jaula.kernel.namespaces import CLONE
from jaula.rootless import namespace_holder, network_helper, subids, systemd_scope, xdg_paths
from jaula.rootless.holder_state import (
    CGROUP_FILE,
    CONTROL_SOCKET,
    HOLDER_DIR,
    KEEPALIVE_ENV,
    KEEPALIVE_FIFO,
    NETWORK_FILE,
    PASTA_PID_FILE,
    open_fifo,
    read_network_helper,
    write_file,
)
from jaula.runtime.create import user_namespace_maps

if TYPE_CHECKING:
    from collections.abc import Iterator

_UCRED = struct.Struct("=iII")


def enter(root: str, run: str) -> None:
    """Join the namespaces of the engine with these directories, or create them.

    :raises JaulaError: when the user has no subordinate ids, a helper is missing or the kernel
        refuses.
    """
    uid = os.geteuid()
    for directory in (root, run):
        _check_directory(directory)
    directory = os.path.join(run, HOLDER_DIR)
    os.makedirs(directory, 0o700, exist_ok=True)
    with _lock(directory):
        pid, keepalive_fd = _enter_running(directory) or _start_holder(directory, uid)
        try:
            _join(pid)
        except OSError as error:
            raise Unavailable(f"cannot enter the engine's namespaces: {error.strerror}") from error
    os.set_inheritable(keepalive_fd, True)
    os.environ[KEEPALIVE_ENV] = str(keepalive_fd)
    os.environ[xdg_paths.ROOTLESS_ENV] = str(uid)


def join_existing(run: str) -> bool:
    """Join the namespaces of an ordinary user's engine, to inspect its containers.

    Return whether such namespaces exist. ``run`` is the engine's run directory.

    :raises OSError: when the namespaces cannot be joined.
    """
    uid = os.geteuid()
    running = _find_running(f"{run}/{HOLDER_DIR}") if uid != 0 else None
    if running is None:
        return False
    pid, keepalive_fd = running
    try:
        _join(pid)
    finally:
        os.close(keepalive_fd)
    os.environ[xdg_paths.ROOTLESS_ENV] = str(uid)
    return True


def _check_directory(path: str) -> None:
    """Create a directory, or check that only the user can write to it."""
    try:
        os.makedirs(path, 0o711, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"cannot create the engine's directory {path}: {error.strerror}",
            hint="set XDG_DATA_HOME and XDG_RUNTIME_DIR, or use --root and --run",
        ) from error
    if not xdg_paths.is_trusted(path):
        raise Unavailable(
            f"the engine's directory {path} belongs to another user or is writable by other users",
            hint="remove it, or set XDG_DATA_HOME and XDG_RUNTIME_DIR, or use --root and --run",
        )


@contextmanager
def _lock(directory: str) -> Iterator[None]:
    """Lock the directory: of several engines that start at once, one starts the holder."""
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _enter_running(directory: str) -> tuple[int, int] | None:
    """Return the running holder as :func:`_find_running`, and move this process into its cgroup."""
    running = _find_running(directory)
    if running is not None:
        write_file(f"{directory}/{CGROUP_FILE}", systemd_scope.enter(running[0], new=False))
        if not _helper_is_running(directory):
            _start_network_helper(directory, running[0], None)
    return running


def _helper_is_running(directory: str) -> bool:
    """Return whether the network helper is running. slirp4netns does not report its pid."""
    if read_network_helper(os.path.dirname(directory)).name != "pasta":
        return bool(read_network_helper(os.path.dirname(directory)).name)
    try:
        with open(f"{directory}/{PASTA_PID_FILE}", encoding="ascii") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            name, _, rest = stat.read().partition("(")[2].rpartition(")")
    except (OSError, ValueError):
        return False
    return name.startswith("pasta") and rest.split()[0] != "Z"


def _start_network_helper(directory: str, holder_pid: int, hangup_fd: int | None) -> None:
    holder_namespaces = network_helper.Namespaces(
        f"/proc/{holder_pid}/ns/user", f"/proc/{holder_pid}/ns/net"
    )
    helper = network_helper.start(holder_namespaces, directory, hangup_fd, _which)
    write_file(f"{directory}/{NETWORK_FILE}", f"{helper.name}\n{helper.reason}")


def _find_running(directory: str) -> tuple[int, int] | None:
    """Return the running holder's pid and a keep-alive descriptor, or None."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(f"{directory}/{CONTROL_SOCKET}")
            keepalive_fd = open_fifo(directory)
        except OSError:
            return None
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(peer)[0]), keepalive_fd


def _join(pid: int) -> None:
    holder_namespaces = [(namespaces.open_namespace(pid, kind), flag) for kind, flag in _NAMESPACES]
    try:
        for fd, flag in holder_namespaces:
            namespaces.setns(fd, flag)
    finally:
        for fd, _ in holder_namespaces:
            os.close(fd)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


_NAMESPACES = (("user", CLONE.NEWUSER), ("net", CLONE.NEWNET))


def _start_holder(directory: str, uid: int) -> tuple[int, int]:
    """Start a namespace holder and a network helper. The result is as in :func:`_find_running`."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    maps = subids.read_id_maps(name, uid, os.getegid())
    for stale in (KEEPALIVE_FIFO, CONTROL_SOCKET, NETWORK_FILE):
        if os.path.lexists(f"{directory}/{stale}"):
            os.unlink(f"{directory}/{stale}")
    os.mkfifo(f"{directory}/{KEEPALIVE_FIFO}", 0o600)
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)  # the holder writes when it is ready
    go_read, go_write = os.pipe2(os.O_CLOEXEC)  # and reads until it may continue
    hangup_fd, hangup_write = os.pipe2(os.O_CLOEXEC)  # hangs up when the holder exits
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _run_holder(directory, ready_write, go_read, hangup_write)
    for fd in (ready_write, go_read, hangup_write):
        os.close(fd)
    try:
        return pid, _finish_setup(pid, directory, maps, ready_read, go_write, hangup_fd)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        for fd in (ready_read, go_write, hangup_fd):
            os.close(fd)


def _run_holder(directory: str, ready_write: int, go_read: int, hangup_write: int) -> None:
    """Run the holder in the child: unshare, wait for the id maps, and serve. Does not return."""
    try:
        try:
            namespaces.unshare(CLONE.NEWUSER)
        except OSError as error:
            os.write(ready_write, f"user namespace: {error.strerror}".encode())
            os._exit(1)
        os.write(ready_write, b"u")
        if not os.read(go_read, 1):
            os._exit(1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        namespace_holder.serve(directory, ready_write, go_read, hangup_write)
    finally:
        os._exit(1)


def _finish_setup(
    pid: int,
    directory: str,
    maps: tuple[subids.IdMap, subids.IdMap],
    ready_read: int,
    go_write: int,
    hangup_fd: int,
) -> int:
    reply = os.read(ready_read, 4096)
    if reply != b"u":
        raise Unavailable(
            f"cannot create a namespace for the engine: {reply.decode(errors='replace') or 'lost'}",
            hint="jaula doctor shows which setting forbids it",
        )
    try:
        user_namespace_maps.write_unprivileged(pid, *maps)
    except OSError as error:
        raise Unavailable(f"cannot write the engine's id maps: {error}") from error
    except JaulaError as error:
        error.hint = f"{error.hint}; jaula doctor shows details" if error.hint else None
        raise
    os.write(go_write, b"m")
    if os.read(ready_read, 1) != b"1":
        raise Unavailable(
            "the engine's namespace holder exited at its start", hint="see the engine's log"
        )
    keepalive_fd = open_fifo(directory)
    try:
        write_file(f"{directory}/{CGROUP_FILE}", systemd_scope.enter(pid, new=True))
        _start_network_helper(directory, pid, hangup_fd)
        os.write(go_write, b"g")
    except BaseException:
        os.close(keepalive_fd)
        raise
    return keepalive_fd


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin:/bin:/sbin")
