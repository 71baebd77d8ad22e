"""``exec``: run another process in a running container."""

from __future__ import annotations

import os

from msgspec import structs

from jaula.errors import Conflict, InvalidRequest
from jaula.oci import bundle_documents, console, preserve_fds, runtime_services
from jaula.oci.args import LIST, SWITCH, VALUE, CommandArgs
from jaula.oci.runtime_container import CONFIG, Container, Record, open_process
from jaula.runtime import exec_process, validation
from jaula.runtime.create import user_namespace_maps
from jaula.runtime.create.clone_process import FdStack, ProcessHandle
from jaula.runtime.init import process_setup, set_rlimits
from jaula.runtime.validation import validate_host
from jaula.spec import runtime_spec

FLAGS = {
    "console-socket": VALUE,
    "pidfd-socket": VALUE,
    "cwd": VALUE,
    "env": LIST,
    "e": "env",
    "tty": SWITCH,
    "t": "tty",
    "user": VALUE,
    "u": "user",
    "additional-gids": LIST,
    "g": "additional-gids",
    "process": VALUE,
    "p": "process",
    "detach": SWITCH,
    "d": "detach",
    "pid-file": VALUE,
    "process-label": VALUE,
    "apparmor": VALUE,
    "no-new-privs": SWITCH,
    "cap": LIST,
    "c": "cap",
    "cgroup": LIST,
    "preserve-fds": VALUE,
    "ignore-paused": SWITCH,
    "no-subreaper": SWITCH,
}
USAGE = "[flags] CONTAINER-ID [COMMAND [ARGUMENT...]]"
FAILURE = 255


def run(args: CommandArgs) -> int:
    """Run the process; return its exit status, or 0 with ``--detach``."""
    options = args.options
    if not args.arguments:
        raise InvalidRequest('"exec" requires a minimum of 1 argument, 0 given')
    detach = options.on("detach")
    preserve = preserve_fds.count(options)
    with Container.open(args.settings.root, args.arguments[0]) as container:
        container.lock(wait_for_create=False)
        record = container.record()
        _check_status(container, record, ignore_paused=options.on("ignore-paused"))
        spec = runtime_spec.decode(container.read(CONFIG))
        process = requested_process(args, spec)
        for warning in validation.check_process(process):
            args.log.warning(warning)
        validate_host.check_process(process, validate_host.detect())
        socket = options.get("console-socket")
        if process.terminal and detach and not socket:
            raise InvalidRequest(
                "cannot allocate a terminal without a console socket when detached",
                hint="use --console-socket",
            )
        if socket and not process.terminal:
            raise InvalidRequest("cannot use a console socket for a process without a terminal")
        container.unlock()  # a process that is born into a paused cgroup waits for a resume
        if not detach:
            from jaula.oci import foreground

            foreground.block_signals()
        handle = _start(args, record, spec, process, preserve)
        try:
            if handle.master >= 0 and socket:
                console.send(socket, handle.master)
            if options.get("pidfd-socket"):
                console.send_pidfd(options.get("pidfd-socket"), handle.pid)
            if options.get("pid-file"):
                console.write_pid(options.get("pid-file"), handle.pid)
        except BaseException:
            os.kill(handle.pid, 9)
            raise
    if detach:
        return 0
    return foreground.wait_for_exit(handle.pid, handle.master if not socket else -1)


def _check_status(container: Container, record: Record, *, ignore_paused: bool) -> None:
    status = container.status(record)
    if status == "stopped":
        raise Conflict("cannot exec in a stopped container")
    if status == "paused" and not ignore_paused:
        raise Conflict("cannot exec in a paused container", hint="use --ignore-paused")


def requested_process(args: CommandArgs, spec: runtime_spec.Spec) -> runtime_spec.Process:
    """Return the process of ``--process``, or the container's own as changed by the other flags."""
    options = args.options
    if options.get("process"):
        return bundle_documents.load_process(options.get("process"))
    if len(args.arguments) < 2:
        raise InvalidRequest("process args cannot be empty")
    assert spec.process is not None
    own = spec.process
    user = _user(options.get("user"), options.all("additional-gids"), own.user)
    capabilities = own.capabilities
    if extra := tuple(options.all("cap")):
        current = capabilities or runtime_spec.Capabilities()
        names = ["bounding", "effective", "permitted"]
        if user.uid:  # execve(2) leaves such a user only ambient capabilities
            names += ["inheritable", "ambient"]
        capabilities = structs.replace(
            current, **{name: (*getattr(current, name), *extra) for name in names}
        )
    return structs.replace(
        own,
        args=tuple(args.arguments[1:]),
        env=(*own.env, *options.all("env")),
        cwd=options.get("cwd") or own.cwd,
        terminal=options.on("tty"),
        console_size=None,
        user=user,
        capabilities=capabilities,
        no_new_privileges=own.no_new_privileges or options.on("no-new-privs"),
        apparmor_profile=options.get("apparmor") or own.apparmor_profile,
        selinux_label=options.get("process-label") or own.selinux_label,
    )


def _user(text: str, groups: list[str], own: runtime_spec.User) -> runtime_spec.User:
    """Return ``uid[:gid]`` and additional groups as a user.

    :raises InvalidRequest: when an id is not numeric.
    """
    uid, _, gid = text.partition(":")
    numbers = (uid, gid, *groups)
    if not all(number.isdecimal() or not number for number in numbers):
        raise InvalidRequest(f"user {text!r} groups {groups}: ids must be numeric")
    return structs.replace(
        own,
        uid=int(uid) if uid else own.uid,
        gid=int(gid) if gid else own.gid,
        additional_gids=tuple(int(group) for group in groups) or own.additional_gids,
    )


def _console_size(args: CommandArgs, process: runtime_spec.Process) -> tuple[int, int]:
    """Return rows and columns: the process's, or the caller's if its terminal is relayed."""
    if process.console_size:
        return process.console_size.height, process.console_size.width
    if not process.terminal or args.options.get("console-socket"):
        return 0, 0
    from jaula.oci import foreground

    return foreground.terminal_size()


def _start(
    args: CommandArgs,
    record: Record,
    spec: runtime_spec.Spec,
    process: runtime_spec.Process,
    preserve: int,
) -> ProcessHandle:
    linux = spec.linux or runtime_spec.Linux()
    interfaces = runtime_services.load(args.settings)
    fd_stack = FdStack()
    init_pidfd = open_process(record)
    if init_pidfd is None:
        raise Conflict("cannot exec in a stopped container")
    fd_stack.add(init_pidfd)
    try:
        config = process_setup.prepare(
            process,
            linux,
            record.state("running"),
            interfaces,
            fd_stack,
            seccomp_cache=runtime_services.seccomp_cache(args.settings),
            annotations=spec.annotations,
            for_exec=True,
        )
        affinity = process.exec_cpu_affinity or runtime_spec.ExecCPUAffinity()
        uids, gids = _mappings(record, linux)
        exec_options = exec_process.ExecOptions(
            owner_ids=(
                user_namespace_maps.host_id(uids, process.user.uid),
                user_namespace_maps.host_id(gids, process.user.gid),
            ),
            stdio=None if process.terminal else (0, 1, 2),
            console=_console_size(args, process),
            raw_output=process.terminal and not args.options.get("console-socket"),
            preserve=preserve,
            debug=args.log.step,
            initial_cpus=set_rlimits.cpu_list(affinity.initial or ""),
            final_cpus=set_rlimits.cpu_list(affinity.final or ""),
        )
        with runtime_services.cgroup_of(record) as cgroup:
            if not (words := args.options.all("cgroup")):
                return exec_process.start(
                    record.pid, init_pidfd, cgroup, process, config, exec_options
                )
            from jaula.oci.sub_cgroup import SubCgroup, parse

            with SubCgroup(cgroup, parse(words)) as below:
                return exec_process.start(
                    record.pid, init_pidfd, below, process, config, exec_options
                )
    finally:
        fd_stack.close()


def _mappings(
    record: Record, linux: runtime_spec.Linux
) -> tuple[tuple[runtime_spec.IDMapping, ...], tuple[runtime_spec.IDMapping, ...]]:
    """Return the spec's id mappings, or those of the user namespace that it names by path."""
    if linux.uid_mappings or not any(entry.type == "user" for entry in linux.namespaces):
        return linux.uid_mappings, linux.gid_mappings
    fd = os.open(f"/proc/{record.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return user_namespace_maps.read(fd)
    finally:
        os.close(fd)
