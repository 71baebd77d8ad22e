"""One more process in a running container (``docker exec``).

A stage in the container's cgroup joins the namespaces of init by its pidfd and clones the process,
which becomes a child of the shim. Statement I22: from before it joins until it execs, neither can
be traced or opened from inside: PR_SET_DUMPABLE is 0 and their memory belongs to the host's user
namespace.
"""

from __future__ import annotations

import os
import socket
from typing import NoReturn

from jaula.errors import RuntimeFailure
from jaula.kernel import namespaces, process, tty
from jaula.kernel.namespaces import CLONE
from jaula.kernel.paths import RESOLVE, openat2
from jaula.runtime import become, channel, launch
from jaula.runtime.handshake import follow
from jaula.runtime.init import report
from jaula.runtime.midwife import Born
from jaula.runtime.ports import Cgroup
from jaula.spec.runtime import Process


def differing(pid: int) -> CLONE:
    """The namespaces in which a process differs from us, as flags for setns."""
    flags = CLONE(0)
    for kind, flag in namespaces.KINDS.items():
        try:
            if namespaces.identity(pid, kind) != namespaces.identity("self", kind):
                flags |= flag
        except FileNotFoundError:  # a kernel without this namespace
            continue
    return flags


def start(
    init_pid: int,
    init_pidfd: int,
    cgroup: Cgroup,
    wanted: Process,
    *,
    owner_ids: tuple[int, int],
    program: tuple[bytes, int] | None,
    stdin_open: bool,
    console: tuple[int, int],
) -> Born:
    """Run ``wanted`` inside. ``owner_ids`` are its user's uid and gid on the host.

    Raises ``RuntimeFailure`` with Docker's exit code where it cannot be started.
    """
    try:
        prepared = become.prepare(wanted, program)
    except become.Failure as failure:
        raise RuntimeFailure(str(failure), exit_code=failure.exit_code) from None
    theirs: list[int] = []
    ours = (-1, -1, -1)
    stdio = (-1, -1, -1)
    mine, sync = channel.pair()
    try:
        if not wanted.terminal:
            stdio, ours = launch.open_stdio(*owner_ids, stdin_open, theirs)
        flags = differing(init_pid)
        stage_pid, stage_pidfd = launch.clone_into(cgroup, theirs)
        if stage_pid == 0:
            mine.close()
            _stage(init_pidfd, flags, prepared, stdio, wanted.terminal, sync)
        os.close(stage_pidfd)
    except BaseException as error:
        mine.close()
        _close(*ours)
        if isinstance(error, OSError):
            raise RuntimeFailure(f"exec: {error}") from error
        raise
    finally:
        sync.close()
        _close(*theirs)
    try:
        lost = "exec: the container's processes ended meanwhile"
        pid, master = follow(mine, stage_pid, wanted, console, lost=lost)
    except BaseException:
        _close(*ours)
        raise
    return Born(pid, master, *ours)


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _stage(
    init_pidfd: int,
    flags: CLONE,
    prepared: become.Prepared,
    stdio: tuple[int, int, int],
    terminal: bool,
    sync: socket.socket,
) -> NoReturn:
    try:
        process.prctl(process.PR_SET_DUMPABLE, 0)
        proc = become.open_proc(prepared)
        namespaces.setns(init_pidfd, flags)
        if flags & CLONE.NEWUSER:
            os.setgroups(())
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            process.prctl(process.PR_SET_DUMPABLE, 0)
        pid, _ = namespaces.clone3(CLONE.PARENT)
        if pid:
            channel.send(sync, b"P%d" % pid)
            os._exit(0)
        labels = become.open_labels(prepared, proc)
        if terminal:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY)
            ptmx = openat2(
                root,
                "dev/pts/ptmx",
                os.O_RDWR | os.O_NOCTTY,
                resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
            )
            master, slave = tty.unlock_pair(ptmx)
            channel.send(sync, b"T", (master,))
            if prepared.uid:
                os.fchown(slave, prepared.uid, -1)
            stdio = (slave,) * 3
        become.take_stdio(*stdio, terminal=terminal)
        process.close_others((sync.fileno(), *labels))
        channel.send(sync, b"R")
        if sync.recv(1) != b"G":
            os._exit(1)
        become.drop(prepared, labels)
        become.execute(prepared)
    except BaseException as error:  # noqa: BLE001 - reported, and the process ends
        report(sync, error, "exec")
