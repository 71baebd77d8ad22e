"""A container's init between clone3 and execve.

The stage process joins the user namespace and the namespaces that the spec shares, then clones init
into the new ones. Init builds its root, drops its privileges and executes the program.
:mod:`jaula.runtime.init.init_sync` holds the messages that they exchange with the parent.

A container that is created now and started later waits on a listening socket. The client that
connects starts it, and receives the error or, when the program runs, end of file.

Statement I4: nothing here imports, looks up a user or a codec after the root is entered. All
modules are loaded and all text is encoded in the parent.
"""

from __future__ import annotations

import _socket
import os
import signal
from collections.abc import Callable, Collection
from typing import NoReturn

import msgspec
from msgspec import structs

from jaula.kernel import loopback, mounts, namespaces, process_calls
from jaula.kernel.namespaces import CLONE, SharedPid
from jaula.runtime import seqpacket
from jaula.runtime.create.clone_process import Stdio
from jaula.runtime.init import find_program, oci_hooks, process_labels, process_setup
from jaula.runtime.init.init_sync import HOOKS_DONE, report, socket_at, wait_to_proceed
from jaula.runtime.init.mask_steps import (
    MaskPath,
    ReadonlyPath,
    ReadonlyRoot,
    Sysctl,
    WorkingDirectory,
)
from jaula.runtime.init.process_setup import ProcessConfig
from jaula.runtime.init.step import RootfsContext, Step
from jaula.runtime.interfaces import ignore
from jaula.spec.runtime_spec import Hooks, State

STEPS_AFTER_HOOKS = (WorkingDirectory, Sysctl, ReadonlyPath, MaskPath, ReadonlyRoot)
"""Steps that complete the root; hooks, which may still change it, run before."""


class InitConfig(msgspec.Struct, frozen=True):
    """Everything that stage and init need; created by the parent, inherited by fork."""

    join: tuple[tuple[int, CLONE], ...]  # namespace descriptors to enter, in this order
    mapped: bool  # whether a user namespace is joined
    create: CLONE
    time_offsets: bytes  # for timens_offsets(7) of a new time namespace; empty: none
    mount_point: str  # an empty directory to attach the root to
    own_mounts: bool  # False: the mount namespace is shared, and its mounts stay unchanged
    pivot: bool  # False: pivot_root is not possible, as on a ramdisk
    propagation: int  # of the host's tree, set before anything is mounted
    root: int  # detached mount
    unused: tuple[int, ...]  # descriptors that the stage closes: the parent closes them last
    prepared_mounts: dict[int, int]  # detached mounts by index in spec.mounts
    prepare_inside: Callable[[], tuple[int, dict[int, int]]] | None  # init creates these two
    steps: tuple[Step, ...]
    process: ProcessConfig
    hostname: str | None
    domainname: str | None
    terminal: bool
    console: tuple[int, int]
    stdio: Stdio
    preserve: int = 0  # number of descriptors that the program inherits, from 3 on
    inherited: tuple[int, ...] = ()  # those descriptors, if they are not at 3 and on
    start_socket: int = -1  # listening; -1: start at once
    hooks: Hooks | None = None
    shared_pid: SharedPid | None = None  # of init, for the parent
    state: State | None = None  # of the container, for hooks
    debug: Callable[[str], None] = ignore  # gets each step, until the root is entered
    spare: bool = False  # the steps are those of a spare init, which waits for its start then


START = b"S"  # sent by the start command
_START_TIMEOUT = 10.0  # seconds for a client of the start socket to send it


def stage(config: InitConfig, sync_sock: _socket.socket) -> NoReturn:
    """Join namespaces, then clone init as a child of the parent."""
    try:
        process_calls.prctl(process_calls.PR_SET_DUMPABLE, 0)
        for fd in config.unused:
            os.close(fd)
        os.chdir(config.mount_point)
        create = config.create
        offsets = -1
        if create & CLONE.NEWTIME:  # clock offsets must be set before it has a process
            offsets = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        for fd, kind in config.join:
            namespaces.setns(fd, kind)
        if config.mapped:
            process_setup.become_root()
        if offsets >= 0:
            namespaces.unshare(CLONE.NEWTIME)
            create &= ~CLONE.NEWTIME
            if config.time_offsets:
                os.write(offsets, config.time_offsets)
            os.close(offsets)
        pid, _ = namespaces.clone3(CLONE.PARENT | create, shared_pid=config.shared_pid)
        if pid:
            seqpacket.send(sync_sock, b"P%d" % pid)
            os._exit(0)
        _init(config, sync_sock)
    except BaseException as error:  # noqa: BLE001 - reported, and the process exits
        report(sync_sock, error, "namespaces")


def _init(config: InitConfig, sync_sock: _socket.socket) -> NoReturn:
    """Build the root, enter it, drop privileges and execute the program."""
    action = "root file system"
    try:
        made_mounts: Collection[int] = ()
        if config.own_mounts:
            mounts.mount(None, "/", None, config.propagation)
        if config.spare:
            config, made_mounts = _become(config, sync_sock)
        label_request = config.process.labels
        label_fds = process_labels.open_labels(
            label_request, process_labels.open_proc(label_request)
        )
        if config.hostname is not None and config.create & CLONE.NEWUTS:
            process_calls.sethostname(config.hostname)
        if config.domainname is not None and config.create & CLONE.NEWUTS:
            process_calls.setdomainname(config.domainname)
        if config.create & CLONE.NEWNET:
            loopback.set_up()
        root, prepared_mounts = config.root, config.prepared_mounts
        if config.prepare_inside is not None:
            root, prepared_mounts = config.prepare_inside()
        mounts.move_mount(root, ".")
        context = RootfsContext(root, prepared_mounts, made_mounts)
        hooks_due = config.hooks is not None
        for step in config.steps:
            if hooks_due and isinstance(step, STEPS_AFTER_HOOKS):
                action, hooks_due = "hooks", False
                _hooks(config, sync_sock)
            action = step.describe()
            config.debug(f"init: {action}")
            step.execute(context)
        if hooks_due:
            action = "hooks"
            _hooks(config, sync_sock)
        context.finish()
        action = "enter the root"
        config.debug(f"init: {action}")
        if config.own_mounts and config.pivot:
            _pivot(root)
        else:
            _change_root(root, move=config.own_mounts)
        context.share()
        action = "start the program"
        if config.terminal:
            seqpacket.send(sync_sock, b"T", (context.master,))
            if config.process.uid:
                os.fchown(context.slave, config.process.uid, -1)
            stdio = (context.slave,) * 3
        else:
            stdio = config.stdio
        listener = config.process.listener
        keep = (
            sync_sock.fileno(),
            *label_fds.fds,
            config.start_socket,
            listener.socket if listener else -1,
        )
        kept_fds = process_setup.take_stdio(
            *stdio,
            terminal=config.terminal,
            preserve=config.preserve,
            inherited=config.inherited,
            keep=keep,
        )
        sync_sock = socket_at(sync_sock, kept_fds[0])
        label_fds = structs.replace(label_fds, apparmor=kept_fds[1], selinux=kept_fds[2])
        process_config = config.process
        if listener:
            listener = structs.replace(listener, socket=kept_fds[4])
            process_config = structs.replace(process_config, listener=listener)
        in_cwd = process_setup.try_cwd(process_config.cwd)
        pid = wait_to_proceed(sync_sock)
        if kept_fds[3] >= 0:
            find_program.check_program(process_config)
            sync_sock = _wait_for_start(sync_sock, kept_fds[3])
        process_config = find_program.with_home(process_config)
        process_setup.drop(process_config, label_fds, in_cwd=in_cwd)
        if config.hooks is not None and config.hooks.start_container and config.state is not None:
            action = "hooks"
            if listener:
                process_setup.confine(process_config, pid)
                process_config = structs.replace(process_config, filter=None)
            state = structs.replace(config.state, pid=os.getpid(), status="created")
            oci_hooks.run(
                "startContainer",
                config.hooks.start_container,
                state,
                environment=process_config.environment,
                confine=lambda: process_setup.confine(process_config, pid),
            )
            os.write(sync_sock.fileno(), HOOKS_DONE)
            action = "start the program"
        find_program.execute(
            process_config, config.preserve, lambda: process_setup.confine(process_config, pid)
        )
    except BaseException as error:  # noqa: BLE001 - reported, and the process exits
        report(sync_sock, error, action)


def _become(config: InitConfig, sync_sock: _socket.socket) -> tuple[InitConfig, Collection[int]]:
    """Build the system directories, wait for a start, and return its configuration.

    The second value are the ids of the mounts that were made. Exit if there is no start.
    """
    from jaula.runtime.init import spare  # the command jaula-runtime has no spare init

    made_mounts, trees = spare.build(config.steps, config.prepared_mounts)
    request, fds = spare.wait(sync_sock)
    rest = iter(fds)
    return structs.replace(
        config,
        root=next(rest),
        prepared_mounts={slot: next(rest) for slot in request.slots} | trees,
        steps=request.steps,
        process=request.process,
        hostname=request.hostname,
        domainname=request.domainname,
        terminal=request.terminal,
        stdio=(-1, -1, -1) if request.terminal else (next(rest), next(rest), next(rest)),
        spare=False,
    ), made_mounts


def _hooks(config: InitConfig, sync_sock: _socket.socket) -> None:
    """Wait until the parent has run its hooks, then run the createContainer hooks."""
    seqpacket.send(sync_sock, b"H")
    if sync_sock.recv(1) != b"C":
        os._exit(1)
    assert config.hooks is not None
    assert config.state is not None
    state = structs.replace(config.state, pid=os.getpid(), status="creating")
    oci_hooks.run(
        "createContainer",
        config.hooks.create_container,
        state,
        environment=config.process.environment,
    )


_ENDING_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)


def _exit_by_signal(number: int, _frame: object) -> None:
    os._exit(128 + number)


def _wait_for_start(sync_sock: _socket.socket, listener_fd: int) -> _socket.socket:
    """Wait on the start socket; return the connection of the start command.

    A signal that ends a process by default ends init meanwhile. The kernel would ignore it, as for
    every first process of a pid namespace.
    """
    for number in _ENDING_SIGNALS:
        signal.signal(number, _exit_by_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING_SIGNALS)
    seqpacket.send(sync_sock, b"W")
    sync_sock.close()
    listener_sock = _socket.socket(fileno=listener_fd)
    while True:
        start_sock = _socket.socket(fileno=listener_sock._accept()[0])  # type: ignore[attr-defined]
        start_sock.settimeout(_START_TIMEOUT)
        try:
            if start_sock.recv(1) == START:
                start_sock.settimeout(None)
                listener_sock.close()
                return start_sock
        except TimeoutError:
            pass  # a client that is stopped must not prevent the start by another
        start_sock.close()  # a status probe, not a start


def _pivot(root: int) -> None:
    """Make the root ``/`` and detach the host's tree from this mount namespace."""
    os.fchdir(root)
    mounts.pivot_root(".", ".")
    mounts.umount2(".", mounts.MNT.DETACH)
    os.chdir("/")


def _change_root(root: int, *, move: bool) -> None:
    """Make the root ``/`` without pivot_root: on a ramdisk, or in a shared mount namespace."""
    os.fchdir(root)
    if move:
        mounts.mount(".", "/", None, mounts.MS.MOVE)
    os.chroot(".")
    os.chdir("/")
