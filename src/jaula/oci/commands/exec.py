"""``exec``: one more program in a running container."""

from __future__ import annotations

import os

from msgspec import structs

from jaula.errors import Conflict, InvalidRequest
from jaula.oci import bundle as bundles
from jaula.oci import console, preserve_fds, services
from jaula.oci.args import LIST, SWITCH, VALUE, CommandArgs
from jaula.oci.commands.delete import open_process
from jaula.oci.container import CONFIG, Container, Record
from jaula.runtime import exec as runtime_exec
from jaula.runtime import validation
from jaula.runtime.create import id_maps
from jaula.runtime.create.process import FdStack, ProcessHandle
from jaula.runtime.init import exec as init_exec
from jaula.runtime.init import rlimits
from jaula.runtime.validation import host
from jaula.spec import runtime as oci

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
    "preserve-fds": VALUE,
    "ignore-paused": SWITCH,
    "no-subreaper": SWITCH,
}
USAGE = "[flags] CONTAINER-ID [COMMAND [ARGUMENT...]]"
FAILURE = 255


def run(call: CommandArgs) -> int:
    """The program's exit status, or 0 when detached."""
    options = call.options
    if not call.arguments:
        raise InvalidRequest('"exec" requires a minimum of 1 argument, 0 given')
    detach = options.on("detach")
    preserve = preserve_fds.count(options)
    with Container.find(call.settings.root, call.arguments[0]) as container:
        container.lock(unmade=False)
        record = container.record()
        _check_status(container, record, ignore_paused=options.on("ignore-paused"))
        spec = oci.decode(container.read(CONFIG))
        wanted = wanted_process(call, spec)
        for warning in validation.check_process(wanted):
            call.log.warning(warning)
        host.check_process(wanted, host.facts())
        socket = options.get("console-socket")
        if wanted.terminal and detach and not socket:
            raise InvalidRequest(
                "cannot allocate a terminal without a console socket when detached",
                hint="give --console-socket",
            )
        if socket and not wanted.terminal:
            raise InvalidRequest("cannot use a console socket for a process without a terminal")
        container.unlock()  # a process that is born into a paused cgroup waits for a resume
        if not detach:
            from jaula.oci import foreground

            foreground.hold_signals()
        born = _start(call, record, spec, wanted, preserve)
        try:
            if born.master >= 0 and socket:
                console.send(socket, born.master)
            if options.get("pidfd-socket"):
                console.send_pidfd(options.get("pidfd-socket"), born.pid)
            if options.get("pid-file"):
                console.write_pid(options.get("pid-file"), born.pid)
        except BaseException:
            os.kill(born.pid, 9)
            raise
    if detach:
        return 0
    return foreground.stay(born.pid, born.master if not socket else -1)


def _check_status(container: Container, record: Record, *, ignore_paused: bool) -> None:
    status = container.status(record)
    if status == "stopped":
        raise Conflict("cannot exec in a stopped container")
    if status == "paused" and not ignore_paused:
        raise Conflict("cannot exec in a paused container", hint="use --ignore-paused")


def wanted_process(call: CommandArgs, spec: oci.Spec) -> oci.Process:
    """The process as ``--process`` says, or the container's own changed by the other flags."""
    options = call.options
    if options.get("process"):
        return bundles.load_process(options.get("process"))
    if len(call.arguments) < 2:
        raise InvalidRequest("process args cannot be empty")
    assert spec.process is not None
    own = spec.process
    capabilities = own.capabilities
    if extra := tuple(options.all("cap")):
        held = capabilities or oci.Capabilities()
        capabilities = structs.replace(
            held,
            bounding=(*held.bounding, *extra),
            effective=(*held.effective, *extra),
            permitted=(*held.permitted, *extra),
        )
    return structs.replace(
        own,
        args=tuple(call.arguments[1:]),
        env=(*own.env, *options.all("env")),
        cwd=options.get("cwd") or own.cwd,
        terminal=options.on("tty"),
        console_size=None,
        user=_user(options.get("user"), options.all("additional-gids"), own.user),
        capabilities=capabilities,
        no_new_privileges=own.no_new_privileges or options.on("no-new-privs"),
        apparmor_profile=options.get("apparmor") or own.apparmor_profile,
        selinux_label=options.get("process-label") or own.selinux_label,
    )


def _user(text: str, groups: list[str], own: oci.User) -> oci.User:
    """``uid[:gid]`` and further groups, all numbers. Raises ``InvalidRequest``."""
    uid, _, gid = text.partition(":")
    numbers = (uid, gid, *groups)
    if not all(number.isdecimal() or not number for number in numbers):
        raise InvalidRequest(f"user {text!r} groups {groups}: only numeric ids are known here")
    return structs.replace(
        own,
        uid=int(uid) if uid else own.uid,
        gid=int(gid) if gid else own.gid,
        additional_gids=tuple(int(group) for group in groups) or own.additional_gids,
    )


def _console(call: CommandArgs, wanted: oci.Process) -> tuple[int, int]:
    """Rows and columns: as the process says, or the caller's where its terminal is joined."""
    if wanted.console_size:
        return wanted.console_size.height, wanted.console_size.width
    if not wanted.terminal or call.options.get("console-socket"):
        return 0, 0
    from jaula.oci import foreground

    return foreground.size()


def _start(
    call: CommandArgs, record: Record, spec: oci.Spec, wanted: oci.Process, preserve: int
) -> ProcessHandle:
    linux = spec.linux or oci.Linux()
    all_parts = services.load(call.settings)
    keep = FdStack()
    init = open_process(record)
    if init is None:
        raise Conflict("cannot exec in a stopped container")
    keep.add(init)
    try:
        prepared = init_exec.prepare(
            wanted,
            linux,
            record.state("running"),
            all_parts,
            keep,
            seccomp_cache=services.seccomp_cache(call.settings),
            annotations=spec.annotations,
            joining=True,
        )
        affinity = wanted.exec_cpu_affinity or oci.ExecCPUAffinity()
        uids, gids = _mappings(record, linux)
        terms = runtime_exec.ExecOptions(
            owner_ids=(
                id_maps.host_id(uids, wanted.user.uid),
                id_maps.host_id(gids, wanted.user.gid),
            ),
            stdio=None if wanted.terminal else (0, 1, 2),
            console=_console(call, wanted),
            preserve=preserve,
            initial_cpus=rlimits.cpu_list(affinity.initial or ""),
            final_cpus=rlimits.cpu_list(affinity.final or ""),
        )
        with services.cgroup_of(record) as cgroup:
            return runtime_exec.start(record.pid, init, cgroup, wanted, prepared, terms)
    finally:
        keep.close()


def _mappings(
    record: Record, linux: oci.Linux
) -> tuple[tuple[oci.IDMapping, ...], tuple[oci.IDMapping, ...]]:
    """The spec's, or those of the user namespace that the spec names by path."""
    if linux.uid_mappings or not any(entry.type == "user" for entry in linux.namespaces):
        return linux.uid_mappings, linux.gid_mappings
    fd = os.open(f"/proc/{record.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return id_maps.read(fd)
    finally:
        os.close(fd)
