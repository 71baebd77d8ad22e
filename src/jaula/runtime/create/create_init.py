"""Create a container from a spec: the parent's side (runc: ``container_linux.go``).

The parent is a helper of the shim in the engine, and the command itself for ``jaula-runtime``. It
creates cgroup, user namespace, root and bind mounts with its own privileges, then forks the stage.
When a step fails, everything created so far is removed before the error is raised.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
from msgspec import structs

from jaula.errors import Conflict, RuntimeFailure, runtime_error, system_error_text
from jaula.kernel.namespaces import SharedPid
from jaula.runtime import seqpacket
from jaula.runtime.create import mount_plan, namespace_plan
from jaula.runtime.create.clone_process import (
    FdStack,
    ProcessHandle,
    Stdio,
    clone_into,
    give_to,
    memory_limit,
    stdio_pipes,
)
from jaula.runtime.create.mount_rootfs import mount_root, prepare_mounts
from jaula.runtime.create.user_namespace_maps import host_id
from jaula.runtime.init import init, oci_hooks, process_labels, process_setup
from jaula.runtime.init.init_sync import follow, report
from jaula.runtime.init.process_setup import ProcessConfig
from jaula.runtime.init.step import Step
from jaula.runtime.interfaces import Cgroup, Interfaces, ignore
from jaula.spec.rootfs import DirectoryRoot, RootSource
from jaula.spec.runtime_spec import Hooks, Linux, Process, Spec, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.runtime.create.spare_init import SpareInit

_NONE = (-1, -1, -1)


class CreateOptions(msgspec.Struct, frozen=True):
    """Options that the caller adds to a spec: paths, namespaces, stdio and start mode."""

    state: State  # for hooks and the seccomp agent; pid and status are filled in later
    root: RootSource
    mount_point: str  # an existing directory to attach the root to
    cgroup: str  # path below each hierarchy's mount point
    sandbox: tuple[int, int] | None = None  # prepared user and network namespace
    namespace_fds: dict[str, int] = {}  # by type; joined instead of a path or a new one
    host_mounts: int = -1  # mount namespace in which shared binds are made; -1: this process's
    stdio: Stdio | None = None  # the caller's descriptors; None: create pipes
    stdin_open: bool = False
    console: tuple[int, int] = (0, 0)  # rows, columns; 0: from the spec, or keep the kernel's
    raw_output: bool = False  # the terminal passes newlines on as they are
    preserve: int = 0  # number of descriptors that the program inherits, from 3 on
    inherited: tuple[int, ...] = ()  # those descriptors, if they are not at 3 and on
    start_socket: int = -1  # listening: init waits on it to be started; -1: start at once
    seccomp_cache: str | None = None  # directory of compiled filters
    session_keyring: bool = True  # create a session keyring (keyrings(7))
    pivot: bool = True  # False: use chroot instead of pivot_root
    unprivileged: bool = False  # no privileges over the mount namespace of this process
    debug: Callable[[str], None] = ignore  # gets each step as it begins
    proceed: Callable[[], None] = lambda: None  # called before the first process is created


def start(
    spec: Spec, options: CreateOptions, interfaces: Interfaces, spare: SpareInit | None = None
) -> ProcessHandle:
    """Create a container; start it unless ``options`` makes init wait.

    ``spare`` becomes its init if the spec has its shape, and is ended otherwise.

    :raises RuntimeFailure: when a step fails; nothing of the container is left then.
    :raises InvalidRequest: when the spec asks for something impossible.
    """
    linux, process_spec = spec.linux, spec.process
    if linux is None or process_spec is None:
        raise RuntimeFailure("the spec has no linux or no process section")
    fd_stack, layer_clones = FdStack(), FdStack()
    debug = options.debug
    steps: tuple[Step, ...] = ()
    if spare is not None:
        spare, steps = _claim(spare, spec, options)
    try:
        debug("compile the process and its filter of system calls")
        try:
            config = process_setup.prepare(
                process_spec,
                linux,
                options.state,
                interfaces,
                fd_stack,
                seccomp_cache=options.seccomp_cache,
                session_keyring=options.session_keyring,
                annotations=spec.annotations,
            )
        except BaseException:
            if spare is not None:
                spare.end()
            raise
        if spare is None:
            debug(f"create cgroup {options.cgroup}")
            cgroup = interfaces.cgroups.create(options.cgroup)
        else:
            cgroup = spare.cgroup
        try:
            check_thawed(cgroup, options.cgroup)
            debug("set the limits of the cgroup")
            resources = linux.resources
            if resources is not None and spare is not None:
                resources = structs.replace(resources, devices=())  # it has these rules
            warnings = cgroup.apply(resources) if resources is not None else ()
            pid, master, parent_stdio = _create_init(
                spec,
                linux,
                process_spec,
                config,
                options,
                cgroup,
                fd_stack,
                layer_clones,
                spare,
                steps,
            )
            cgroup.release_pause_process()
        except BaseException:
            debug("undo: kill the processes and remove the cgroup")
            fd_stack.close()  # it may have taken every descriptor of the limit
            layer_clones.close()
            cgroup.kill()
            cgroup.destroy()
            raise
        return ProcessHandle(
            pid, master, *parent_stdio, options.cgroup, memory_limit(linux), warnings
        )
    except OSError as error:
        raise RuntimeFailure(
            system_error_text("the container's process cannot be created", error)
        ) from error
    finally:
        fd_stack.close()
        layer_clones.close()


def _claim(
    spare: SpareInit, spec: Spec, options: CreateOptions
) -> tuple[SpareInit | None, tuple[Step, ...]]:
    """Return the spare init with the steps that are left for it, or end it."""
    steps = None
    try:
        if not options.namespace_fds and not options.inherited and not _binds_root(spec, options):
            steps = spare.steps_left(spec, options.sandbox)
    finally:
        if steps is None:
            spare.end()
    return (spare, steps) if steps is not None else (None, ())


def _binds_root(spec: Spec, options: CreateOptions) -> bool:
    """Return whether init makes bind mounts of the root's own directories."""
    root = options.root
    if not isinstance(root, DirectoryRoot):
        return False
    return bool(mount_plan.inside_sources(spec, root.path, options.state.bundle))


def check_thawed(cgroup: Cgroup, path: str) -> None:
    """Check that processes can run in a new cgroup.

    :raises Conflict: when it is frozen.
    """
    if cgroup.frozen():
        raise Conflict(
            f"cgroup {path} is frozen: the container could not start",
            hint="thaw the cgroup that it is below",
        )


def _create_init(
    spec: Spec,
    linux: Linux,
    process_spec: Process,
    config: ProcessConfig,
    options: CreateOptions,
    cgroup: Cgroup,
    fd_stack: FdStack,
    layer_clones: FdStack,
    spare: SpareInit | None,
    steps: tuple[Step, ...],
) -> tuple[int, int, Stdio]:
    """Create init. Return (pid, terminal master or -1, our ends of its pipes or -1).

    ``spare`` becomes init, with ``steps``, if it is set.
    """
    options.debug("open and create namespaces")
    ns = namespace_plan.plan(
        linux,
        options.sandbox,
        fd_stack,
        namespace_fds=options.namespace_fds,
        unprivileged=options.unprivileged,
    )
    inside: dict[int, str] = {}
    if isinstance(options.root, DirectoryRoot):
        inside = mount_plan.inside_sources(spec, options.root.path, options.state.bundle)
    selinux = bool(linux.mount_label) and os.path.exists("/sys/fs/selinux/enforce")

    foreign = {} if options.unprivileged else ns.foreign

    def prepare() -> tuple[int, dict[int, int]]:
        options.debug("create the root and the bind mounts, detached")
        try:
            context = linux.mount_label if selinux else None
            clones = None if options.unprivileged else layer_clones
            root = fd_stack.add(
                mount_root(options.root, ns.user_fd, ns.owner, context=context, clones=clones)
            )
        except OSError as error:
            raise runtime_error(error, "root file system") from error
        prepared_mounts = prepare_mounts(
            spec,
            user_fd=ns.user_fd,
            owner=ns.owner,
            fd_stack=fd_stack,
            bundle=options.state.bundle,
            unprivileged=options.unprivileged,
            selinux=selinux,
            inside=inside,
            foreign=foreign,
            host_mounts=options.host_mounts,
            made=spare.slots if spare is not None else None,
        )
        return root, prepared_mounts

    root, prepared_mounts = (-1, {}) if options.unprivileged else prepare()
    if not steps:
        steps = mount_plan.plan_in_cgroup(
            spec, cgroup.locations().values(), selinux=selinux, inside=inside, foreign=foreign
        )
    stdio, parent_stdio = _stdio(
        process_spec, ns, options, fd_stack, process_labels.pipe_label(spec)
    )
    size = process_spec.console_size
    init_config = init.InitConfig(
        join=ns.join,
        mapped=ns.user_fd is not None,
        create=ns.create,
        time_offsets=namespace_plan.time_offsets(linux),
        mount_point=options.mount_point,
        own_mounts=ns.own_mounts,
        pivot=options.pivot,
        propagation=mount_plan.host_propagation(linux),
        root=root,
        unused=tuple(layer_clones.fds),
        prepared_mounts=prepared_mounts,
        prepare_inside=prepare if options.unprivileged else None,
        steps=steps,
        process=config,
        hostname=spec.hostname,
        domainname=spec.domainname,
        terminal=process_spec.terminal,
        console=options.console if any(options.console) or not size else (size.height, size.width),
        stdio=stdio,
        preserve=options.preserve or len(options.inherited),
        inherited=options.inherited,
        start_socket=options.start_socket,
        hooks=spec.hooks,
        shared_pid=SharedPid(),
        state=options.state,
        debug=options.debug,
    )
    try:
        options.proceed()
        if spare is not None:
            pid, master = _start_spare(spare, init_config, process_spec, fd_stack, layer_clones)
        else:
            pid, master = _fork_stage(
                init_config,
                process_spec,
                cgroup,
                fd_stack,
                layer_clones,
                raw_output=options.raw_output,
            )
    except BaseException:
        for fd in parent_stdio:
            if fd >= 0:
                os.close(fd)
        raise
    return pid, master, parent_stdio


def _stdio(
    process_spec: Process,
    ns: namespace_plan.NamespacePlan,
    options: CreateOptions,
    fd_stack: FdStack,
    context: str | None,
) -> tuple[Stdio, Stdio]:
    """Return the container's three descriptors and our ends of them; -1 for none."""
    if process_spec.terminal:
        return _NONE, _NONE
    uid = host_id(ns.uid_mappings, process_spec.user.uid)
    if options.stdio is not None:
        give_to(uid, options.stdio)
        return options.stdio, _NONE
    gid = host_id(ns.gid_mappings, process_spec.user.gid)
    return stdio_pipes(uid, gid, options.stdin_open, fd_stack.fds, context=context)


def _fork_stage(
    init_config: init.InitConfig,
    process_spec: Process,
    cgroup: Cgroup,
    fd_stack: FdStack,
    layer_clones: FdStack,
    *,
    raw_output: bool,
) -> tuple[int, int]:
    """Fork the stage and wait until the program runs, or waits for its start.

    Return (pid of init, terminal master or -1). ``layer_clones`` is closed while init builds the
    root: the stage has closed its copies then.
    """
    parent_sock, child_sock = seqpacket.pair()
    stage_pid, stage_pidfd = clone_into(
        cgroup, fd_stack.fds, lambda error: report(child_sock, error, "cgroup")
    )
    if stage_pid == 0:
        parent_sock.close()
        init.stage(init_config, child_sock)
    child_sock.close()
    fd_stack.close()  # the stage has its own copies
    spec_hooks, shared_pid = init_config.hooks, init_config.shared_pid
    assert shared_pid is not None
    return follow(
        parent_sock,
        (stage_pid, stage_pidfd),
        shared_pid,
        process_spec,
        init_config.console,
        died_message="init died while the container was created",
        start_hooks=bool(spec_hooks and spec_hooks.start_container),
        waits_for_start=init_config.start_socket >= 0,
        run_hooks=_runtime_hooks(spec_hooks, init_config.state, init_config.debug),
        hooks_inside=bool(
            spec_hooks and (spec_hooks.create_container or spec_hooks.start_container)
        ),
        check=lambda pid: process_labels.check(pid, init_config.process.labels),
        filtered=init_config.process.filter is not None,
        raw_output=raw_output,
        created=layer_clones.close,
        debug=init_config.debug,
    )


def _start_spare(
    spare: SpareInit,
    init_config: init.InitConfig,
    process_spec: Process,
    fd_stack: FdStack,
    layer_clones: FdStack,
) -> tuple[int, int]:
    """Pass the start to a spare init, and wait until the program runs.

    Return (pid of init, terminal master or -1).
    """
    spare.send(init_config)
    fd_stack.close()  # init has its own copies
    layer_clones.close()
    return follow(
        spare.sock,
        None,
        SharedPid(),
        process_spec,
        init_config.console,
        pid=spare.pid,
        died_message="init died while the container was created",
        check=lambda pid: process_labels.check(pid, init_config.process.labels),
        filtered=init_config.process.filter is not None,
        debug=init_config.debug,
    )


def _runtime_hooks(
    spec_hooks: Hooks | None, state: State | None, debug: Callable[[str], None]
) -> Callable[[int], None] | None:
    """Return a function that runs the hooks of the runtime's namespaces."""
    if spec_hooks is None or state is None:
        return None

    def run(pid: int) -> None:
        if not spec_hooks.prestart and not spec_hooks.create_runtime:
            return
        for hook in (*spec_hooks.prestart, *spec_hooks.create_runtime):
            debug(f"hook {hook.path} is due")
        current = structs.replace(state, pid=pid, status="creating")
        pidfd = os.pidfd_open(pid)
        try:
            oci_hooks.run("prestart", spec_hooks.prestart, current, init_pidfd=pidfd)
            oci_hooks.run("createRuntime", spec_hooks.create_runtime, current, init_pidfd=pidfd)
        finally:
            os.close(pidfd)

    return run
