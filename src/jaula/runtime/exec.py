"""One more process in a running container (``docker exec``).

A stage in the container's cgroup joins the namespaces of init by its pidfd and clones the process,
which becomes a child of the shim. Statement I22: from before it joins until it execs, neither can
be traced or opened from inside: PR_SET_DUMPABLE is 0 and their memory belongs to the host's user
namespace.
"""

from __future__ import annotations

import _socket
import errno
import os
from typing import NoReturn

import msgspec
from msgspec import structs

from jaula.errors import RuntimeFailure
from jaula.kernel import namespaces, process, tty
from jaula.kernel.namespaces import CLONE
from jaula.kernel.paths import RESOLVE, openat2
from jaula.runtime import seqpacket
from jaula.runtime.create.clone import clone_into
from jaula.runtime.create.process import ProcessHandle
from jaula.runtime.create.stdio import stdio_pipes
from jaula.runtime.init import exec as init_exec
from jaula.runtime.init import lsm_labels
from jaula.runtime.init.sync import follow, moved, report, wait_for_word
from jaula.runtime.interfaces import Cgroup
from jaula.spec.runtime import Process


def differing(pid: int) -> CLONE:
    """The namespaces in which a process differs from us, as flags for setns."""
    flags = CLONE(0)
    for kind, flag in namespaces.KINDS.items():
        try:
            if namespaces.namespace_id(pid, kind) != namespaces.namespace_id("self", kind):
                flags |= flag
        except FileNotFoundError:  # a kernel without this namespace
            continue
    return flags


class ExecOptions(msgspec.Struct, frozen=True):
    """How the caller wants an exec'd process to be joined to the outside."""

    owner_ids: tuple[int, int]  # of its user, on the host
    stdio: tuple[int, int, int] | None = None  # its own descriptors; None: pipes are made
    stdin_open: bool = False
    console: tuple[int, int] = (0, 0)  # rows, columns; 0: leave
    preserve: int = 0  # descriptors that the program inherits, from 3 on
    initial_cpus: frozenset[int] = frozenset()  # before it is in the cgroup; empty: leave
    final_cpus: frozenset[int] = frozenset()


def start(
    init_pid: int,
    init_pidfd: int,
    cgroup: Cgroup,
    wanted: Process,
    prepared: init_exec.ProcessConfig,
    terms: ExecOptions,
) -> ProcessHandle:
    """Run ``wanted`` inside. Raises ``RuntimeFailure`` with Docker's exit code if it fails."""
    theirs: list[int] = []
    ours = stdio = (-1, -1, -1)
    mine, sync = seqpacket.pair()
    try:
        if terms.stdio is not None:
            stdio = terms.stdio
        elif not wanted.terminal:
            context = lsm_labels.of_files(init_pid) if prepared.labels.selinux else None
            stdio, ours = stdio_pipes(*terms.owner_ids, terms.stdin_open, theirs, context=context)
        flags = differing(init_pid)
        if terms.initial_cpus:
            os.sched_setaffinity(0, terms.initial_cpus)
        stage_pid, stage_pidfd = clone_into(cgroup, theirs, lambda error: _refused(sync, error))
        if stage_pid == 0:
            mine.close()
            _stage(init_pidfd, flags, prepared, stdio, wanted.terminal, terms, sync)
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
        pid, master = follow(
            mine,
            stage_pid,
            wanted,
            terms.console,
            lost=lost,
            check=lambda pid: lsm_labels.check(pid, prepared.labels),
        )
    except BaseException:
        _close(*ours)
        raise
    return ProcessHandle(pid, master, *ours)


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _refused(sync: _socket.socket, error: OSError) -> NoReturn:
    """The cgroup takes nobody; where it is gone, its container has ended, which the maker says."""
    if error.errno == errno.ENODEV:
        os._exit(125)
    report(sync, error, "cgroup")


def _stage(
    init_pidfd: int,
    flags: CLONE,
    prepared: init_exec.ProcessConfig,
    stdio: tuple[int, int, int],
    terminal: bool,
    terms: ExecOptions,
    sync: _socket.socket,
) -> NoReturn:
    try:
        process.prctl(process.PR_SET_DUMPABLE, 0)
        if terms.final_cpus:
            os.sched_setaffinity(0, terms.final_cpus)
        proc = lsm_labels.open_proc(prepared.labels)
        namespaces.setns(init_pidfd, flags)
        if flags & CLONE.NEWUSER:
            init_exec.be_root()
        pid, _ = namespaces.clone3(CLONE.PARENT)
        if pid:
            seqpacket.send(sync, b"P%d" % pid)
            os._exit(0)
        opened = lsm_labels.open_labels(prepared.labels, proc)
        if terminal:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY)
            ptmx = openat2(
                root,
                "dev/pts/ptmx",
                os.O_RDWR | os.O_NOCTTY,
                resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
            )
            master, slave = tty.unlock_pair(ptmx)
            seqpacket.send(sync, b"T", (master,))
            if prepared.uid:
                os.fchown(slave, prepared.uid, -1)
            stdio = (slave,) * 3
        listener = prepared.listener
        numbers = (sync.fileno(), *opened.fds, listener.socket if listener else -1)
        kept = init_exec.take_stdio(
            *stdio, terminal=terminal, preserve=terms.preserve, kept=numbers
        )
        sync = moved(sync, kept[0])
        opened = structs.replace(opened, apparmor=kept[1], selinux=kept[2])
        if listener:
            listener = structs.replace(listener, socket=kept[3])
            prepared = structs.replace(prepared, listener=listener)
        pid = wait_for_word(sync)
        prepared = init_exec.with_home(prepared)
        init_exec.drop(prepared, opened, pid)
        init_exec.seal(prepared, pid)
        init_exec.execute(prepared, terms.preserve)
    except BaseException as error:  # noqa: BLE001 - reported, and the process ends
        report(sync, error, "exec")
