"""Run another process in a running container (``docker exec``).

A stage process in the container's cgroup joins the namespaces of init by its pidfd. It then clones
the process, which becomes a child of the shim. Statement I22: from before they join until execve,
neither can be traced or opened from inside. PR_SET_DUMPABLE is 0, and their memory belongs to the
host's user namespace.
"""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Callable
from typing import NoReturn

import msgspec
from msgspec import structs

from jaula.errors import RuntimeFailure
from jaula.kernel import namespaces, process_calls, tty
from jaula.kernel.namespaces import CLONE, SharedPid
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.runtime import seqpacket
from jaula.runtime.create.clone_process import ProcessHandle, Stdio, clone_into, stdio_pipes
from jaula.runtime.init import find_program, process_labels, process_setup
from jaula.runtime.init.init_sync import follow, report, socket_at, wait_to_proceed
from jaula.runtime.interfaces import AttachCgroup, ignore
from jaula.spec.runtime_spec import Process


def different_namespaces(pid: int) -> CLONE:
    """Return the namespaces in which a process differs from this one, as flags for setns."""
    flags = CLONE(0)
    for kind, flag in namespaces.KINDS.items():
        try:
            if namespaces.namespace_id(pid, kind) != namespaces.namespace_id("self", kind):
                flags |= flag
        except FileNotFoundError:  # this kernel does not have the namespace
            continue
    return flags


class ExecOptions(msgspec.Struct, frozen=True):
    """Stdio, terminal size and CPU affinity of an exec'd process."""

    owner_ids: tuple[int, int]  # host uid and gid of the process's user
    stdio: Stdio | None = None  # existing descriptors; None: create pipes
    stdin_open: bool = False
    console: tuple[int, int] = (0, 0)  # rows, columns; 0: keep the kernel's size
    raw_output: bool = False  # the terminal passes newlines on as they are
    preserve: int = 0  # number of descriptors that the program inherits, from 3 on
    initial_cpus: frozenset[int] = frozenset()  # before it joins the cgroup; empty: unchanged
    final_cpus: frozenset[int] = frozenset()
    debug: Callable[[str], None] = ignore  # gets each step as it begins
    enter_root: Callable[[], None] | None = None  # called in the namespaces, as their root user


def start(
    init_pid: int,
    init_pidfd: int,
    cgroup: AttachCgroup,
    process_spec: Process,
    config: process_setup.ProcessConfig,
    options: ExecOptions,
) -> ProcessHandle:
    """Run ``process_spec`` in the container.

    :raises RuntimeFailure: with Docker's exit code, when the process cannot be started.
    """
    child_fds: list[int] = []
    parent_stdio = stdio = (-1, -1, -1)
    parent_sock, sync_sock = seqpacket.pair()
    shared_pid = SharedPid()
    try:
        if options.stdio is not None:
            stdio = options.stdio
        elif not process_spec.terminal:
            context = process_labels.root_label(init_pid) if config.labels.selinux else None
            stdio, parent_stdio = stdio_pipes(
                *options.owner_ids, options.stdin_open, child_fds, context=context
            )
        flags = different_namespaces(init_pid)
        options.debug(f"enter the cgroup and the namespaces of process {init_pid}")
        if options.initial_cpus:
            os.sched_setaffinity(0, options.initial_cpus)
        stage_pid, stage_pidfd = clone_into(
            cgroup, child_fds, lambda error: _cgroup_refused(sync_sock, error)
        )
        if stage_pid == 0:
            parent_sock.close()
            terminal = process_spec.terminal
            _stage(init_pidfd, flags, config, stdio, terminal, options, sync_sock, shared_pid)
    except BaseException as error:
        parent_sock.close()
        _close(*parent_stdio)
        if isinstance(error, OSError):
            raise RuntimeFailure(f"exec: {error}") from error
        raise
    finally:
        sync_sock.close()
        _close(*child_fds)
    try:
        died_message = "exec: the container's processes exited meanwhile"
        pid, master = follow(
            parent_sock,
            (stage_pid, stage_pidfd),
            shared_pid,
            process_spec,
            options.console,
            died_message=died_message,
            check=lambda pid: process_labels.check(pid, config.labels),
            filtered=config.filter is not None,
            raw_output=options.raw_output,
            debug=options.debug,
        )
    except BaseException:
        _close(*parent_stdio)
        raise
    return ProcessHandle(pid, master, *parent_stdio)


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _cgroup_refused(sync_sock: _socket.socket, error: OSError) -> NoReturn:
    """Handle a cgroup that cannot be joined.

    If it no longer exists the container has exited; the parent reports that.
    """
    if error.errno == errno.ENODEV:
        os._exit(125)
    report(sync_sock, error, "cgroup")


def _stage(
    init_pidfd: int,
    flags: CLONE,
    config: process_setup.ProcessConfig,
    stdio: Stdio,
    terminal: bool,
    options: ExecOptions,
    sync_sock: _socket.socket,
    shared_pid: SharedPid,
) -> NoReturn:
    """Join the container's namespaces, clone the process, and execute the program in it."""
    try:
        process_calls.prctl(process_calls.PR_SET_DUMPABLE, 0)
        if options.final_cpus:
            os.sched_setaffinity(0, options.final_cpus)
        proc = process_labels.open_proc(config.labels)
        namespaces.setns(init_pidfd, flags)
        if flags & CLONE.NEWUSER:
            process_setup.become_root()
        pid, _ = namespaces.clone3(CLONE.PARENT, shared_pid=shared_pid)
        if pid:
            seqpacket.send(sync_sock, b"P%d" % pid)
            os._exit(0)
        if options.enter_root is not None:
            options.enter_root()
        label_fds = process_labels.open_labels(config.labels, proc)
        if terminal:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY)
            ptmx = openat2(
                root,
                "dev/pts/ptmx",
                os.O_RDWR | os.O_NOCTTY,
                resolve=RESOLVE.IN_ROOT | RESOLVE.NO_SYMLINKS,
            )
            master, slave = tty.unlock_pair(ptmx)
            seqpacket.send(sync_sock, b"T", (master,))
            if config.uid:
                os.fchown(slave, config.uid, -1)
            stdio = (slave,) * 3
        listener = config.listener
        keep = (sync_sock.fileno(), *label_fds.fds, listener.socket if listener else -1)
        kept_fds = process_setup.take_stdio(
            *stdio, terminal=terminal, preserve=options.preserve, keep=keep
        )
        sync_sock = socket_at(sync_sock, kept_fds[0])
        label_fds = structs.replace(label_fds, apparmor=kept_fds[1], selinux=kept_fds[2])
        if listener:
            listener = structs.replace(listener, socket=kept_fds[3])
            config = structs.replace(config, listener=listener)
        pid = wait_to_proceed(sync_sock)
        config = find_program.with_home(config)
        process_setup.drop(config, label_fds, in_cwd=process_setup.try_cwd(config.cwd))
        find_program.execute(config, options.preserve, lambda: process_setup.confine(config, pid))
    except BaseException as error:  # noqa: BLE001 - reported, and the process exits
        report(sync_sock, error, "exec")
