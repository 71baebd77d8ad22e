"""What a container's init does between clone3 and exec.

The stage process joins the user namespace and whatever the spec shares, then clones init with the
rest; init builds its root, confines itself and becomes the program. Both report over one
SOCK_SEQPACKET socket: ``P<pid>`` from the stage, ``T`` with the terminal's descriptor, ``E<code>
<text>`` for a failure, end of file for a successful exec.

Statement I4: nothing here imports, looks up a user or a codec after the root is entered; all the
modules are loaded and all the text encoded in the shim.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple, NoReturn

from jaula.kernel import mounts, namespaces, process
from jaula.kernel.namespaces import CLONE
from jaula.runtime import become, channel
from jaula.runtime.become import Failure, Prepared
from jaula.runtime.operations import Operation, Stage


class Blueprint(NamedTuple):
    """All that stage and init need; made by the shim, inherited by fork."""

    join: tuple[tuple[int, CLONE], ...]  # namespace descriptors to enter, the user namespace last
    mapped: bool  # whether a user namespace is entered
    create: CLONE
    mount_point: str  # an empty directory that only serves as a place to attach the root
    root: int
    prepared: dict[int, int]
    steps: tuple[Operation, ...]
    process: Prepared
    hostname: str | None
    domainname: str | None
    terminal: bool
    console: tuple[int, int]
    stdio: tuple[int, int, int]


def stage(blueprint: Blueprint, sync: socket.socket) -> NoReturn:
    """Join, then clone init as a child of the shim."""
    try:
        process.prctl(process.PR_SET_DUMPABLE, 0)
        os.chdir(blueprint.mount_point)
        for fd, kind in blueprint.join:
            namespaces.setns(fd, kind)
        if blueprint.mapped:
            os.setgroups(())
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            process.prctl(process.PR_SET_DUMPABLE, 0)
        pid, _ = namespaces.clone3(CLONE.PARENT | blueprint.create)
        if pid:
            channel.send(sync, b"P%d" % pid)
            os._exit(0)
        _init(blueprint, sync)
    except BaseException as error:  # noqa: BLE001 - reported, and the process ends
        report(sync, error, "namespaces")


def _init(blueprint: Blueprint, sync: socket.socket) -> NoReturn:
    doing = "root file system"
    try:
        labels = become.open_labels(blueprint.process, become.open_proc(blueprint.process))
        if blueprint.hostname is not None and blueprint.create & CLONE.NEWUTS:
            process.sethostname(blueprint.hostname)
        if blueprint.domainname is not None and blueprint.create & CLONE.NEWUTS:
            process.setdomainname(blueprint.domainname)
        mounts.mount(None, "/", None, mounts.MS.REC | mounts.MS.PRIVATE)
        mounts.move_mount(blueprint.root, ".")
        work = Stage(blueprint.root, blueprint.prepared)
        for step in blueprint.steps:
            doing = step.describe()
            step.execute(work)
        doing = "enter the root"
        _pivot(blueprint.root)
        doing = "start the program"
        if blueprint.terminal:
            channel.send(sync, b"T", (work.master,))
            if blueprint.process.uid:
                os.fchown(work.slave, blueprint.process.uid, -1)
            stdio = (work.slave,) * 3
        else:
            stdio = blueprint.stdio
        become.take_stdio(*stdio, terminal=blueprint.terminal)
        process.close_others((sync.fileno(), *labels))
        become.make_cwd(blueprint.process)
        _wait_for_start(sync)
        become.drop(blueprint.process, labels)
        become.execute(blueprint.process)
    except BaseException as error:  # noqa: BLE001 - reported, and the process ends
        report(sync, error, doing)


def _wait_for_start(sync: socket.socket) -> None:
    """Created; the shim says when to go on, once limits are set from outside."""
    channel.send(sync, b"R")
    if sync.recv(1) != b"G":
        os._exit(1)


def _pivot(root: int) -> None:
    """The root becomes ``/``; the host's tree is detached from this mount namespace."""
    os.fchdir(root)
    mounts.pivot_root(".", ".")
    mounts.umount2(".", mounts.MNT.DETACH)
    os.chdir("/")


def report(sync: socket.socket, error: BaseException, doing: str) -> NoReturn:
    """Tell the shim what failed and end."""
    if isinstance(error, Failure):
        code, text = error.exit_code, str(error)
    elif isinstance(error, OSError):
        about = f" ({error.filename})" if error.filename else ""
        code, text = 125, f"{doing}: {error.strerror}{about}"
    else:
        code, text = 125, f"{doing}: {type(error).__name__}: {error}"
    try:
        channel.send(sync, f"E{code} {text}".encode(errors="replace"))
    finally:
        os._exit(code)
