"""What a container's init does between clone3 and exec.

The stage process joins the user namespace and whatever the spec shares, then clones init with the
rest; init builds its root, confines itself and becomes the program. What they say on
the way is in :mod:`jaula.runtime.init.sync`.

A container that is created now and started later waits on a listening socket: whoever connects
starts it, and hears of a failure or, when the program runs, the end of file.

Statement I4: nothing here imports, looks up a user or a codec after the root is entered; all the
modules are loaded and all the text encoded in the shim.
"""

from __future__ import annotations

import _socket
import os
from collections.abc import Callable
from typing import NoReturn

import msgspec
from msgspec import structs

from jaula.kernel import loopback, mounts, namespaces, process
from jaula.kernel.namespaces import CLONE
from jaula.runtime import seqpacket
from jaula.runtime.init import exec as init_exec
from jaula.runtime.init import hooks, lsm_labels, program
from jaula.runtime.init.exec import ProcessConfig
from jaula.runtime.init.mask_steps import MaskPath, ReadonlyPath, ReadonlyRoot, Sysctl
from jaula.runtime.init.step import RootfsContext, Step
from jaula.runtime.init.sync import HOOKS_DONE, moved, report, wait_for_word
from jaula.spec.runtime import Hooks, State

AFTER_HOOKS = (Sysctl, ReadonlyPath, MaskPath, ReadonlyRoot)
"""Steps that close the root; hooks, which may still change it, come before."""


class InitConfig(msgspec.Struct, frozen=True):
    """All that stage and init need; made by the maker, inherited by fork."""

    join: tuple[tuple[int, CLONE], ...]  # namespace descriptors to enter, in this order
    mapped: bool  # whether a user namespace is entered
    create: CLONE
    time_offsets: bytes  # for timens_offsets(7) of a new time namespace; empty: none
    mount_point: str  # an empty directory that only serves as a place to attach the root
    own_mounts: bool  # false: the mount namespace is somebody else's, and stays as it is
    pivot: bool  # false: the root cannot be pivoted, as on a ramdisk
    propagation: int  # of the host's tree, before anything is mounted
    root: int
    prepared: dict[int, int]
    prepare: Callable[[], tuple[int, dict[int, int]]] | None  # makes these two inside, if set
    steps: tuple[Step, ...]
    process: ProcessConfig
    hostname: str | None
    domainname: str | None
    terminal: bool
    console: tuple[int, int]
    stdio: tuple[int, int, int]
    preserve: int = 0  # descriptors that the program inherits, from 3 on
    start_socket: int = -1  # listening; -1: start at once
    hooks: Hooks | None = None
    state: State | None = None  # of the container, for hooks


START = b"S"  # what a starter sends


def stage(blueprint: InitConfig, sync: _socket.socket) -> NoReturn:
    """Join, then clone init as a child of the maker."""
    try:
        process.prctl(process.PR_SET_DUMPABLE, 0)
        os.chdir(blueprint.mount_point)
        create = blueprint.create
        offsets = -1
        if create & CLONE.NEWTIME:  # its clock offsets are set before anybody is inside
            offsets = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        for fd, kind in blueprint.join:
            namespaces.setns(fd, kind)
        if blueprint.mapped:
            init_exec.be_root()
        if offsets >= 0:
            namespaces.unshare(CLONE.NEWTIME)
            create &= ~CLONE.NEWTIME
            if blueprint.time_offsets:
                os.write(offsets, blueprint.time_offsets)
            os.close(offsets)
        pid, _ = namespaces.clone3(CLONE.PARENT | create)
        if pid:
            seqpacket.send(sync, b"P%d" % pid)
            os._exit(0)
        _init(blueprint, sync)
    except BaseException as error:  # noqa: BLE001 - reported, and the process ends
        report(sync, error, "namespaces")


def _init(blueprint: InitConfig, sync: _socket.socket) -> NoReturn:
    doing = "root file system"
    try:
        wanted = blueprint.process.labels
        opened = lsm_labels.open_labels(wanted, lsm_labels.open_proc(wanted))
        if blueprint.hostname is not None and blueprint.create & CLONE.NEWUTS:
            process.sethostname(blueprint.hostname)
        if blueprint.domainname is not None and blueprint.create & CLONE.NEWUTS:
            process.setdomainname(blueprint.domainname)
        if blueprint.create & CLONE.NEWNET:
            loopback.set_up()
        if blueprint.own_mounts:
            mounts.mount(None, "/", None, blueprint.propagation)
        root, prepared = blueprint.root, blueprint.prepared
        if blueprint.prepare is not None:
            root, prepared = blueprint.prepare()
        mounts.move_mount(root, ".")
        work = RootfsContext(root, prepared)
        hooks_due = blueprint.hooks is not None
        for step in blueprint.steps:
            if hooks_due and isinstance(step, AFTER_HOOKS):
                doing, hooks_due = "hooks", False
                _hooks(blueprint, sync)
            doing = step.describe()
            step.execute(work)
        if hooks_due:
            doing = "hooks"
            _hooks(blueprint, sync)
        work.finish()
        doing = "enter the root"
        if blueprint.own_mounts and blueprint.pivot:
            _pivot(root)
        else:
            _change_root(root, move=blueprint.own_mounts)
        work.share()
        doing = "start the program"
        if blueprint.terminal:
            seqpacket.send(sync, b"T", (work.master,))
            if blueprint.process.uid:
                os.fchown(work.slave, blueprint.process.uid, -1)
            stdio = (work.slave,) * 3
        else:
            stdio = blueprint.stdio
        listener = blueprint.process.listener
        numbers = (
            sync.fileno(),
            *opened.fds,
            blueprint.start_socket,
            listener.socket if listener else -1,
        )
        kept = init_exec.take_stdio(
            *stdio, terminal=blueprint.terminal, preserve=blueprint.preserve, kept=numbers
        )
        sync = moved(sync, kept[0])
        opened = structs.replace(opened, apparmor=kept[1], selinux=kept[2])
        prepared_process = blueprint.process
        if listener:
            listener = structs.replace(listener, socket=kept[4])
            prepared_process = structs.replace(prepared_process, listener=listener)
        init_exec.make_cwd(prepared_process)
        pid = wait_for_word(sync)
        if kept[3] >= 0:
            program.locate(prepared_process)
            sync = _wait_for_start(sync, kept[3])
        prepared_process = program.with_home(prepared_process)
        init_exec.drop(prepared_process, opened, pid)
        if blueprint.hooks is not None and blueprint.state is not None:
            doing = "hooks"
            state = structs.replace(blueprint.state, pid=os.getpid(), status="created")
            hooks.run("startContainer", blueprint.hooks.start_container, state)
            if blueprint.hooks.start_container:
                os.write(sync.fileno(), HOOKS_DONE)  # the call that every filter lets through
        init_exec.seal(prepared_process, pid)
        program.execute(prepared_process, blueprint.preserve)
    except BaseException as error:  # noqa: BLE001 - reported, and the process ends
        report(sync, error, doing)


def _hooks(blueprint: InitConfig, sync: _socket.socket) -> None:
    """The maker runs its hooks while we wait, then come those of the container."""
    seqpacket.send(sync, b"H")
    if sync.recv(1) != b"C":
        os._exit(1)
    assert blueprint.hooks is not None
    assert blueprint.state is not None
    state = structs.replace(blueprint.state, pid=os.getpid(), status="creating")
    hooks.run("createContainer", blueprint.hooks.create_container, state)


def _wait_for_start(sync: _socket.socket, listening: int) -> _socket.socket:
    """Created; wait for whoever starts the container, and report to it from now on."""
    seqpacket.send(sync, b"W")
    sync.close()
    waiting = _socket.socket(fileno=listening)
    while True:
        starter = _socket.socket(fileno=waiting._accept()[0])  # type: ignore[attr-defined]
        if starter.recv(1) == START:
            waiting.close()
            return starter
        starter.close()  # somebody who only looked whether we wait


def _pivot(root: int) -> None:
    """The root becomes ``/``; the host's tree is detached from this mount namespace."""
    os.fchdir(root)
    mounts.pivot_root(".", ".")
    mounts.umount2(".", mounts.MNT.DETACH)
    os.chdir("/")


def _change_root(root: int, *, move: bool) -> None:
    """The root becomes ``/`` without pivot_root: on a ramdisk, or in a namespace of others."""
    os.fchdir(root)
    if move:
        mounts.mount(".", "/", None, mounts.MS.MOVE)
    os.chroot(".")
    os.chdir("/")
