"""Making a container from a spec: the shim's side.

Cgroup, user namespace, root and prepared mounts are made with the host's privileges, then the stage
is forked. Whatever fails, everything made so far is undone before the error is raised.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from jaula.errors import RuntimeFailure
from jaula.kernel import namespaces
from jaula.kernel.namespaces import CLONE
from jaula.runtime import become, channel, init, mountplan, preparation
from jaula.runtime.handshake import follow
from jaula.runtime.hierarchies import v1_hierarchies
from jaula.runtime.midwife import Born
from jaula.runtime.ports import Cgroup, Parts
from jaula.runtime.preparation import Keep
from jaula.runtime.rootfs import mount_root
from jaula.spec.rootfs import RootSource
from jaula.spec.runtime import IDMapping, Spec

UNNAMED = "/jaula/unnamed"  # the cgroup of a spec that names none
_KINDS = {
    "user": CLONE.NEWUSER,
    "network": CLONE.NEWNET,
    "pid": CLONE.NEWPID,
    "mount": CLONE.NEWNS,
    "ipc": CLONE.NEWIPC,
    "uts": CLONE.NEWUTS,
    "cgroup": CLONE.NEWCGROUP,
    "time": CLONE.NEWTIME,
}


def host_id(mappings: tuple[IDMapping, ...], inside: int) -> int:
    """The host's id of one inside; the id itself without mappings. Raises ``RuntimeFailure``."""
    if not mappings:
        return inside
    for row in mappings:
        if row.container_id <= inside < row.container_id + row.size:
            return row.host_id + inside - row.container_id
    raise RuntimeFailure(
        f"id {inside} is not in the container's user namespace", hint="use a lower id"
    )


def rows(mappings: tuple[IDMapping, ...]) -> list[tuple[int, int, int]]:
    """Mappings as the kernel writes them."""
    return [(row.container_id, row.host_id, row.size) for row in mappings]


def start(
    spec: Spec,
    root: RootSource,
    *,
    mount_point: str,
    sandbox: tuple[int, int] | None,
    console: tuple[int, int],
    stdin_open: bool,
    seccomp_cache: str | None,
    parts: Parts,
) -> Born:
    """Create and start a container. Raises ``RuntimeFailure``; then nothing is left of it."""
    linux, wanted = spec.linux, spec.process
    if linux is None or wanted is None:
        raise RuntimeFailure("the spec has no linux or no process section")
    if spec.hooks is not None:
        raise RuntimeFailure("the spec has hooks, which this runtime does not run")
    try:
        program = parts.seccomp_program(linux.seccomp, seccomp_cache) if linux.seccomp else None
        prepared = become.prepare(wanted, program)
    except become.Failure as failure:
        raise RuntimeFailure(str(failure), exit_code=failure.exit_code) from None
    cgroup = parts.cgroups.create(linux.cgroups_path or UNNAMED)
    keep = Keep()
    try:
        if linux.resources is not None:
            cgroup.apply(linux.resources)
        blueprint, ours = _blueprint(
            spec,
            root,
            prepared,
            mount_point,
            sandbox,
            console,
            stdin_open,
            cgroup.locations().values(),
            keep,
        )
        try:
            pid, master = _fork(blueprint, spec, cgroup, keep)
        except BaseException:
            for fd in ours:
                if fd >= 0:
                    os.close(fd)
            raise
        memory = linux.resources.memory if linux.resources else None
        limit = memory.limit if memory and memory.limit and memory.limit > 0 else 0
        return Born(pid, master, *ours, linux.cgroups_path or UNNAMED, limit)
    except BaseException as error:
        cgroup.kill()
        cgroup.destroy()
        if isinstance(error, OSError):
            raise RuntimeFailure(str(error)) from error
        raise
    finally:
        keep.close()


def _blueprint(
    spec: Spec,
    root: RootSource,
    prepared: become.Prepared,
    mount_point: str,
    sandbox: tuple[int, int] | None,
    console: tuple[int, int],
    stdin_open: bool,
    places: Collection[str],
    keep: Keep,
) -> tuple[init.Blueprint, tuple[int, int, int]]:
    linux, wanted = spec.linux, spec.process
    assert linux is not None
    assert wanted is not None
    create = CLONE(0)
    join: list[tuple[int, CLONE]] = []
    user_fd: int | None = None
    for entry in linux.namespaces:
        if entry.type not in _KINDS:
            raise RuntimeFailure(f"unknown namespace type {entry.type!r}")
        flag = _KINDS[entry.type]
        if entry.type == "user":
            if entry.path:
                user_fd = keep.add(os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC))
            elif sandbox is not None:
                user_fd = sandbox[0]
            else:
                made = namespaces.make(CLONE(0), rows(linux.uid_mappings), rows(linux.gid_mappings))
                user_fd = keep.add(made["user"])
        elif entry.path:
            join.append((keep.add(os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)), flag))
        elif entry.type == "network" and sandbox is not None:
            join.append((sandbox[1], flag))
        else:
            create |= flag
    if not create & CLONE.NEWNS:
        raise RuntimeFailure("the spec asks for no mount namespace of its own")
    if user_fd is not None:
        join.append((user_fd, CLONE.NEWUSER))
    owner = (host_id(linux.uid_mappings, 0), host_id(linux.gid_mappings, 0))
    try:
        root_fd = keep.add(mount_root(root, user_fd, owner))
    except OSError as error:
        raise RuntimeFailure(f"root file system: {error}") from error
    steps = mountplan.plan(spec, v1_hierarchies=v1_hierarchies(places))
    ready = preparation.prepare(spec, user_fd=user_fd, owner=owner, keep=keep)
    theirs, ours = _stdio(spec, wanted.terminal, stdin_open, keep)
    blueprint = init.Blueprint(
        tuple(join),
        user_fd is not None,
        create,
        mount_point,
        root_fd,
        ready,
        steps,
        prepared,
        spec.hostname,
        spec.domainname,
        wanted.terminal,
        console,
        theirs,
    )
    return blueprint, ours


def _stdio(
    spec: Spec, terminal: bool, stdin_open: bool, keep: Keep
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The container's three descriptors and the shim's ends of them."""
    if terminal:
        return (-1, -1, -1), (-1, -1, -1)
    assert spec.linux is not None
    assert spec.process is not None
    uid = host_id(spec.linux.uid_mappings, spec.process.user.uid)
    gid = host_id(spec.linux.gid_mappings, spec.process.user.gid)
    return open_stdio(uid, gid, stdin_open, keep.fds)


def open_stdio(
    uid: int, gid: int, stdin_open: bool, theirs: list[int]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Pipes owned by the container's user, so that /dev/stdout can be opened again by name.

    The container's ends are appended to ``theirs``, which the caller closes after the fork; the
    shim's ends are not blocking, and -1 where stdin is closed.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC) if stdin_open else (-1, -1)
    if not stdin_open:
        reading = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    output, output_theirs = os.pipe2(os.O_CLOEXEC)
    error, error_theirs = os.pipe2(os.O_CLOEXEC)
    theirs.extend((reading, output_theirs, error_theirs))
    for fd in (output_theirs, error_theirs, *((reading,) if stdin_open else ())):
        os.fchown(fd, uid, gid)
    for fd in (writing, output, error):
        if fd >= 0:
            os.set_blocking(fd, False)
    return (reading, output_theirs, error_theirs), (writing, output, error)


def _fork(blueprint: init.Blueprint, spec: Spec, cgroup: Cgroup, keep: Keep) -> tuple[int, int]:
    """Fork the stage and wait until the program runs: (init's pid, terminal master)."""
    mine, theirs = channel.pair()
    stage_pid, stage_pidfd = clone_into(cgroup, keep.fds)
    if stage_pid == 0:
        mine.close()
        init.stage(blueprint, theirs)
    os.close(stage_pidfd)
    theirs.close()
    keep.close()  # the container's copies live in the stage now
    assert spec.process is not None
    lost = "the container's first process died while it was made"
    return follow(mine, stage_pid, spec.process, blueprint.console, lost=lost)


def clone_into(cgroup: Cgroup, keep: list[int]) -> tuple[int, int]:
    """Fork a child that is in the cgroup when this returns in it: (pid, pidfd) or (0, -1).

    On v2 it is born there; on v1 it moves itself by descriptors, which are added to ``keep``.
    """
    directory = cgroup.directory_fd()
    entries: tuple[int, ...] = ()
    if directory is None:
        entries = cgroup.entry()
        keep.extend(entries)
    pid, pidfd = namespaces.clone3(CLONE(0), cgroup=directory)
    if pid == 0:
        try:
            for entry in entries:
                os.write(entry, b"0")
        except OSError:
            os._exit(125)
    return pid, pidfd
