"""Making a container from a spec: the maker's side.

Cgroup, user namespace, root and prepared mounts are made with the maker's privileges, then the
stage is forked. Whatever fails, everything made so far is undone before the error is raised. The
maker is a shim's helper in the engine, and the command itself for ``jaula-runtime``.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
from msgspec import structs

from jaula.errors import RuntimeFailure
from jaula.runtime import seqpacket
from jaula.runtime.create import bind_mounts, mount_plan, namespaces, process_setup
from jaula.runtime.create.cgroup_mounts import container_directories, own_places, v1_hierarchies
from jaula.runtime.create.clone import clone_into
from jaula.runtime.create.fd_stack import FdStack
from jaula.runtime.create.id_maps import host_id
from jaula.runtime.create.process import ProcessHandle, memory_limit
from jaula.runtime.create.rootfs import mount_root
from jaula.runtime.create.stdio import give_to, stdio_pipes
from jaula.runtime.init import hooks, init, lsm_labels
from jaula.runtime.init.exec import ProcessConfig
from jaula.runtime.init.sync import follow, report
from jaula.runtime.interfaces import Cgroup, Interfaces
from jaula.spec.rootfs import RootSource
from jaula.spec.runtime import Hooks, Linux, Process, Spec, State

_NONE = (-1, -1, -1)


class CreateOptions(msgspec.Struct, frozen=True):
    """What the caller adds to a spec: where things are, and how it wants to be joined to it."""

    state: State  # for hooks and the seccomp agent; pid and status are filled in
    root: RootSource
    mount_point: str  # an existing directory that serves as a place to attach the root
    cgroup: str  # below each hierarchy's mount point
    sandbox: tuple[int, int] | None = None  # user and network namespace, prepared
    held: dict[str, int] = {}  # namespaces by type, entered where the spec names a path
    stdio: tuple[int, int, int] | None = None  # the caller's own; None: pipes are made
    stdin_open: bool = False
    console: tuple[int, int] = (0, 0)  # rows, columns; 0: as the spec says, or leave
    preserve: int = 0  # descriptors that the program inherits, from 3 on
    start_socket: int = -1  # listening: init waits there to be started; -1: start at once
    seccomp_cache: str | None = None
    session_keyring: bool = True
    pivot: bool = True
    unprivileged: bool = False  # no rights over the mount namespace that we are in


def start(spec: Spec, terms: CreateOptions, parts: Interfaces) -> ProcessHandle:
    """Create a container, and start it unless it is to wait.

    Raises ``RuntimeFailure`` or ``InvalidRequest``; then nothing is left of it.
    """
    linux, wanted = spec.linux, spec.process
    if linux is None or wanted is None:
        raise RuntimeFailure("the spec has no linux or no process section")
    keep = FdStack()
    try:
        prepared = process_setup.prepare(
            wanted,
            linux,
            terms.state,
            parts,
            keep,
            seccomp_cache=terms.seccomp_cache,
            session_keyring=terms.session_keyring,
            annotations=spec.annotations,
        )
        cgroup = parts.cgroups.create(terms.cgroup)
        try:
            warnings = cgroup.apply(linux.resources) if linux.resources is not None else ()
            pid, master, ours = _make(spec, linux, wanted, prepared, terms, cgroup, keep)
            cgroup.release_pause_process()
        except BaseException:
            cgroup.kill()
            cgroup.destroy()
            raise
        return ProcessHandle(pid, master, *ours, terms.cgroup, memory_limit(linux), warnings)
    except OSError as error:
        raise RuntimeFailure(str(error)) from error
    finally:
        keep.close()


def _make(
    spec: Spec,
    linux: Linux,
    wanted: Process,
    prepared: ProcessConfig,
    terms: CreateOptions,
    cgroup: Cgroup,
    keep: FdStack,
) -> tuple[int, int, tuple[int, int, int]]:
    """(init's pid, its terminal's master or -1, our ends of its pipes or -1)."""
    ns = namespaces.decide(
        linux, terms.sandbox, keep, held=terms.held, unprivileged=terms.unprivileged
    )
    selinux = bool(linux.mount_label) and os.path.exists("/sys/fs/selinux/enforce")

    def prepare() -> tuple[int, dict[int, int]]:
        try:
            context = linux.mount_label if selinux else None
            root = keep.add(mount_root(terms.root, ns.user_fd, ns.owner, context=context))
        except OSError as error:
            raise RuntimeFailure(f"root file system: {error}") from error
        ready = bind_mounts.prepare(
            spec,
            user_fd=ns.user_fd,
            owner=ns.owner,
            keep=keep,
            bundle=terms.state.bundle,
            unprivileged=terms.unprivileged,
            selinux=selinux,
        )
        return root, ready

    root, ready = (-1, {}) if terms.unprivileged else prepare()
    places = cgroup.locations().values() or own_places()
    steps = mount_plan.plan(
        spec,
        v1_hierarchies=v1_hierarchies(places),
        cgroups=container_directories(places),
        selinux=selinux,
    )
    labelled = linux.mount_label if selinux and wanted.selinux_label else None
    stdio, ours = _stdio(wanted, ns, terms, keep, labelled)
    box = wanted.console_size
    blueprint = init.InitConfig(
        join=ns.join,
        mapped=ns.user_fd is not None,
        create=ns.create,
        time_offsets=namespaces.time_offsets(linux),
        mount_point=terms.mount_point,
        own_mounts=ns.own_mounts,
        pivot=terms.pivot,
        propagation=mount_plan.host_propagation(linux),
        root=root,
        prepared=ready,
        prepare=prepare if terms.unprivileged else None,
        steps=steps,
        process=prepared,
        hostname=spec.hostname,
        domainname=spec.domainname,
        terminal=wanted.terminal,
        console=terms.console if any(terms.console) or not box else (box.height, box.width),
        stdio=stdio,
        preserve=terms.preserve,
        start_socket=terms.start_socket,
        hooks=spec.hooks,
        state=terms.state,
    )
    try:
        pid, master = _fork(blueprint, wanted, cgroup, keep)
    except BaseException:
        for fd in ours:
            if fd >= 0:
                os.close(fd)
        raise
    return pid, master, ours


def _stdio(
    wanted: Process,
    ns: namespaces.NamespacePlan,
    terms: CreateOptions,
    keep: FdStack,
    context: str | None,
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The container's three descriptors and our ends of them; -1 where there is none."""
    if wanted.terminal:
        return _NONE, _NONE
    uid = host_id(ns.uid_mappings, wanted.user.uid)
    if terms.stdio is not None:
        give_to(uid, terms.stdio)
        return terms.stdio, _NONE
    gid = host_id(ns.gid_mappings, wanted.user.gid)
    return stdio_pipes(uid, gid, terms.stdin_open, keep.fds, context=context)


def _fork(
    blueprint: init.InitConfig, wanted: Process, cgroup: Cgroup, keep: FdStack
) -> tuple[int, int]:
    """Fork the stage and wait until the program runs or waits: (init's pid, terminal master)."""
    mine, theirs = seqpacket.pair()
    stage_pid, stage_pidfd = clone_into(
        cgroup, keep.fds, lambda error: report(theirs, error, "cgroup")
    )
    if stage_pid == 0:
        mine.close()
        init.stage(blueprint, theirs)
    os.close(stage_pidfd)
    theirs.close()
    keep.close()  # the container's copies live in the stage now
    return follow(
        mine,
        stage_pid,
        wanted,
        blueprint.console,
        lost="the container's first process died while it was made",
        start_hooks=bool(blueprint.hooks and blueprint.hooks.start_container),
        start_later=blueprint.start_socket >= 0,
        at_hooks=_runtime_hooks(blueprint.hooks, blueprint.state),
        check=lambda pid: lsm_labels.check(pid, blueprint.process.labels),
    )


def _runtime_hooks(wanted: Hooks | None, state: State | None) -> Callable[[int], None] | None:
    """What runs in our own namespaces once the container's exist."""
    if wanted is None or state is None:
        return None

    def run(pid: int) -> None:
        if not wanted.prestart and not wanted.create_runtime:
            return
        now = structs.replace(state, pid=pid, status="creating")
        pidfd = os.pidfd_open(pid)
        try:
            hooks.run("prestart", wanted.prestart, now, needs=pidfd)
            hooks.run("createRuntime", wanted.create_runtime, now, needs=pidfd)
        finally:
            os.close(pidfd)

    return run
