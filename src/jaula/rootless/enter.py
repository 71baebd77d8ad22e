"""From an ordinary user to the root of a user namespace of the engine's own.

A keeper that is there already is joined, since containers of a former engine are in its
namespaces; else one is made. The caller must have one thread; afterwards it is user 0 with every
capability over its own namespaces, and the very same user as before to everybody else.
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
from jaula.rootless import (
    namespace_holder,
    paths,
    subids,
    systemd_scope,
)
from jaula.rootless import (
    network_helper as rootless_network_helper,
)
from jaula.rootless.state import (
    CGROUP_FILE,
    CONTROL_SOCKET,
    HOLDER_DIR,
    KEEPALIVE_ENV,
    KEEPALIVE_FIFO,
    NETWORK_FILE,
    network_helper,
    open_fifo,
    write_file,
)
from jaula.runtime.create import id_maps

if TYPE_CHECKING:
    from collections.abc import Iterator

_UCRED = struct.Struct("=iII")


def enter(root: str, run: str) -> None:
    """Become the root of the namespaces that belong to the engine with these directories.

    Raises ``JaulaError`` where the user has no ids, a helper is missing or the kernel refuses.
    """
    uid = os.geteuid()
    for directory in (root, run):
        _own_directory(directory)
    directory = os.path.join(run, HOLDER_DIR)
    os.makedirs(directory, 0o700, exist_ok=True)
    with _locked(directory):
        pid, alive = _found(directory) or _make(directory, uid)
        try:
            _join(pid)
        except OSError as error:
            raise Unavailable(f"cannot enter the engine's namespaces: {error.strerror}") from error
    os.set_inheritable(alive, True)
    os.environ[KEEPALIVE_ENV] = str(alive)
    os.environ[paths.ROOTLESS_ENV] = str(uid)


def join_existing(run: str) -> bool:
    """Enter the namespaces of an ordinary user's engine to look at its containers.

    ``run`` is the engine's run directory. Whether there are such namespaces. Raises ``OSError``.
    """
    uid = os.geteuid()
    living = _living(f"{run}/{HOLDER_DIR}") if uid != 0 else None
    if living is None:
        return False
    pid, alive = living
    try:
        _join(pid)
    finally:
        os.close(alive)
    os.environ[paths.ROOTLESS_ENV] = str(uid)
    return True


def _own_directory(path: str) -> None:
    """Make a directory, or check that it is the user's and nobody else writes to it."""
    try:
        os.makedirs(path, 0o711, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"cannot make the engine's directory {path}: {error.strerror}",
            hint="set XDG_DATA_HOME and XDG_RUNTIME_DIR, or use --root and --run",
        ) from error
    if not paths.is_trusted(path):
        raise Unavailable(
            f"the engine's directory {path} is not this user's alone",
            hint="remove it, or set XDG_DATA_HOME and XDG_RUNTIME_DIR, or use --root and --run",
        )


@contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Of several engines that start at once, one makes the keeper."""
    lock = os.open(f"{directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _found(directory: str) -> tuple[int, int] | None:
    """A keeper that is there, and ourselves in its cgroup."""
    living = _living(directory)
    if living is not None:
        write_file(f"{directory}/{CGROUP_FILE}", systemd_scope.enter(living[0], new=False))
        if not _helper_lives(directory):
            _reach_outside(directory, living[0], None)
    return living


def _helper_lives(directory: str) -> bool:
    """Whether what joins the network to outside is there; slirp4netns tells no process id."""
    if network_helper(os.path.dirname(directory)).name != "pasta":
        return bool(network_helper(os.path.dirname(directory)).name)
    try:
        with open(f"{directory}/pasta.pid", encoding="ascii") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            name, _, rest = stat.read().partition("(")[2].rpartition(")")
    except (OSError, ValueError):
        return False
    return name.startswith("pasta") and rest.split()[0] != "Z"


def _reach_outside(directory: str, keeper_pid: int, hangs_up: int | None) -> None:
    spaces = rootless_network_helper.Namespaces(
        f"/proc/{keeper_pid}/ns/user", f"/proc/{keeper_pid}/ns/net"
    )
    joined = rootless_network_helper.start(spaces, directory, hangs_up, _find)
    write_file(f"{directory}/{NETWORK_FILE}", f"{joined.name}\n{joined.reason}")


def _living(directory: str) -> tuple[int, int] | None:
    """The keeper that answers, None where there is none: its process id, and what it lives by."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(f"{directory}/{CONTROL_SOCKET}")
            alive = open_fifo(directory)
        except OSError:
            return None
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(peer)[0]), alive


def _join(pid: int) -> None:
    spaces = [(namespaces.open_namespace(pid, kind), flag) for kind, flag in _KINDS]
    try:
        for fd, flag in spaces:
            namespaces.setns(fd, flag)
    finally:
        for fd, _ in spaces:
            os.close(fd)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


_KINDS = (("user", CLONE.NEWUSER), ("net", CLONE.NEWNET))


def _make(directory: str, uid: int) -> tuple[int, int]:
    """Start a keeper and what joins its network to outside; as :func:`_living`."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    maps = subids.read_id_maps(name, uid, os.getegid())
    for left in (KEEPALIVE_FIFO, CONTROL_SOCKET, NETWORK_FILE):
        if os.path.lexists(f"{directory}/{left}"):
            os.unlink(f"{directory}/{left}")
    os.mkfifo(f"{directory}/{KEEPALIVE_FIFO}", 0o600)
    told, telling = os.pipe2(os.O_CLOEXEC)  # the keeper tells that it is ready
    waits, going = os.pipe2(os.O_CLOEXEC)  # and waits until it may go on
    hangs_up, held = os.pipe2(os.O_CLOEXEC)  # the keeper's end is seen here
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _become_keeper(directory, telling, waits, held)
    for fd in (telling, waits, held):
        os.close(fd)
    try:
        return pid, _finish(pid, directory, maps, told, going, hangs_up)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        for fd in (told, going, hangs_up):
            os.close(fd)


def _become_keeper(directory: str, telling: int, waits: int, held: int) -> None:
    """In the child: the user namespace, then, once its maps are written, the keeper's life."""
    try:
        try:
            namespaces.unshare(CLONE.NEWUSER)
        except OSError as error:
            os.write(telling, f"user namespace: {error.strerror}".encode())
            os._exit(1)
        os.write(telling, b"u")
        if not os.read(waits, 1):
            os._exit(1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        namespace_holder.serve(directory, telling, waits, held)
    finally:
        os._exit(1)


def _finish(
    pid: int,
    directory: str,
    maps: tuple[subids.IdMap, subids.IdMap],
    told: int,
    going: int,
    hangs_up: int,
) -> int:
    answer = os.read(told, 4096)
    if answer != b"u":
        raise Unavailable(
            f"cannot make a namespace for the engine: {answer.decode(errors='replace') or 'lost'}",
            hint="jaula doctor tells which setting forbids it",
        )
    try:
        id_maps.write_unprivileged(pid, *maps)
    except OSError as error:
        raise Unavailable(f"the engine's id maps: {error}") from error
    except JaulaError as error:
        error.hint = f"{error.hint}; jaula doctor tells more" if error.hint else None
        raise
    os.write(going, b"m")
    if os.read(told, 1) != b"1":
        raise Unavailable("the engine's keeper ended at its start", hint="see the engine's log")
    alive = open_fifo(directory)
    try:
        write_file(f"{directory}/{CGROUP_FILE}", systemd_scope.enter(pid, new=True))
        _reach_outside(directory, pid, hangs_up)
        os.write(going, b"g")
    except BaseException:
        os.close(alive)
        raise
    return alive


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin:/bin:/sbin")
