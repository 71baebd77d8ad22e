"""``create``: create a container whose init waits to be started; ``run`` shares it.

The record is written before anything is created, and again when init exists. So ``delete --force``
can always remove what was created, whatever happens in between.
"""

from __future__ import annotations

import os
import time

import msgspec
from msgspec import structs

from jaula.cgroups import cgroup_path
from jaula.cgroups.device_rules import with_default_devices
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.oci import bundle_documents, console, notify_socket, preserve_fds, runtime_services
from jaula.oci.args import SWITCH, VALUE, CommandArgs
from jaula.oci.commands import oci_delete
from jaula.oci.runtime_container import CONFIG, STATE, Container, Record, check_id, process_facts
from jaula.oci.runtime_settings import Settings
from jaula.runtime import validation
from jaula.runtime.create import create_init, mount_options
from jaula.runtime.create.clone_process import ProcessHandle
from jaula.runtime.interfaces import CgroupDriver, Interfaces
from jaula.runtime.validation import validate_host
from jaula.spec import runtime_spec
from jaula.spec.rootfs import DirectoryRoot

FLAGS = {
    "bundle": VALUE,
    "b": "bundle",
    "console-socket": VALUE,
    "pidfd-socket": VALUE,
    "pid-file": VALUE,
    "no-pivot": SWITCH,
    "no-new-keyring": SWITCH,
    "preserve-fds": VALUE,
}
USAGE = "[flags] CONTAINER-ID"


class CreatedContainer(msgspec.Struct, frozen=True):
    """A container that was just created."""

    record: Record
    spec: runtime_spec.Spec
    handle: ProcessHandle
    notify: notify_socket.NotifySocket | None  # None as well when init waits to be started


def run(args: CommandArgs) -> int:
    """Create a container; the caller becomes the parent of its init when this command exits."""
    create_container(args, args.container_id(), wait_for_start=True)
    return 0


def create_container(
    args: CommandArgs, container_id: str, *, wait_for_start: bool, foreground: bool = False
) -> CreatedContainer:
    """Create a container; its program runs at once unless it waits for ``start``.

    ``foreground`` keeps the terminal's master in ``handle``.

    :raises JaulaError: when a step fails; nothing of the container is left then.
    """
    options, settings = args.options, args.settings
    check_id(container_id)
    listen = preserve_fds.listen_variables(os.environ, os.getpid())
    preserve = preserve_fds.count(options, int(listen.get("LISTEN_FDS", 0)))
    notify_address = notify_socket.host_address(os.environ)
    variables = [f"{name}={value}" for name, value in listen.items()]
    notify = None
    bundle = os.path.realpath(options.get("bundle") or ".")
    args.log.step(f"read and validate {bundle}/{CONFIG}")
    spec = bundle_documents.load(bundle)
    for warning in validation.check(spec):
        args.log.warning(warning)
    validate_host.check(spec, validate_host.detect())
    assert spec.process is not None
    assert spec.root is not None
    _check_console(spec.process.terminal, options.get("console-socket"), foreground=foreground)
    cgroup = _cgroup_path(spec, container_id, settings)
    rootfs = os.path.realpath(os.path.join(bundle, spec.root.path))
    record = Record(
        id=container_id,
        bundle=bundle,
        rootfs=rootfs,
        oci_version=spec.oci_version,
        annotations=spec.annotations,
        created=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        + f".{time.time_ns() % 1_000_000_000:09}Z",
        owner=os.geteuid(),
        cgroup=cgroup,
        systemd=settings.systemd_cgroup,
        rootless=settings.rootless,
    )
    with Container.create(settings.root, container_id) as container:
        try:
            args.log.step(f"write {container.path}")
            container.write(CONFIG, runtime_spec.encode(spec))
            container.write(STATE, record.encode())
            added_mounts: tuple[runtime_spec.Mount, ...] = ()
            if notify_address:
                notify_socket.make_directory(container)
                added_mounts = (_notify_mount(container),)
                variables.append(notify_socket.variable())
                if not wait_for_start:
                    warn = args.log.warning
                    notify = notify_socket.open_socket(container, notify_address, warn)
            relay_terminal = foreground and spec.process.terminal
            interfaces = runtime_services.load(settings, spec.annotations)
            handle = _launch(
                args,
                container,
                record,
                spec,
                interfaces,
                wait_for_start=wait_for_start,
                preserve=preserve,
                relay_terminal=relay_terminal,
                variables=tuple(variables),
                mounts=added_mounts,
            )
        except BaseException:
            container.remove()
            raise
        try:
            _publish(args, container, record, handle, interfaces.cgroups)
        except BaseException:
            oci_delete.kill(record)
            oci_delete.remove(args, container, record)
            raise
    return CreatedContainer(record, spec, handle, notify)


def _launch(
    args: CommandArgs,
    container: Container,
    record: Record,
    spec: runtime_spec.Spec,
    interfaces: Interfaces,
    *,
    wait_for_start: bool,
    preserve: int,
    relay_terminal: bool,
    variables: tuple[str, ...],
    mounts: tuple[runtime_spec.Mount, ...],
) -> ProcessHandle:
    """Create init; with ``relay_terminal`` its terminal gets the size of the caller's.

    ``variables`` and ``mounts`` are added to those of the spec.
    """
    options = args.options
    listener = container.listen() if wait_for_start else None
    try:
        runtime_options = create_init.CreateOptions(
            state=record.state("creating"),
            root=DirectoryRoot(record.rootfs, id_mapped=False),
            mount_point=record.rootfs,
            cgroup=record.cgroup,
            stdio=(0, 1, 2),
            console=_caller_terminal_size() if relay_terminal else (0, 0),
            raw_output=relay_terminal,
            preserve=preserve,
            start_socket=listener.fileno() if listener is not None else -1,
            seccomp_cache=runtime_services.seccomp_cache(args.settings),
            session_keyring=not options.on("no-new-keyring"),
            pivot=not options.on("no-pivot"),
            unprivileged=os.geteuid() != 0,
            debug=args.log.step,
        )
        _refuse_frozen(interfaces.cgroups, record.cgroup)
        joined = spec.linux.namespaces if spec.linux is not None else ()
        less_privileged = args.settings.rootless or any(e.type == "user" for e in joined)
        every_mount = tuple(
            mount_options.with_cleared_flags(mount, less_privileged=less_privileged)
            for mount in (*spec.mounts, *mounts)
        )
        complete = structs.replace(_with_device_rules(spec, args.settings), mounts=every_mount)
        if variables and spec.process is not None:
            process = structs.replace(spec.process, env=(*spec.process.env, *variables))
            complete = structs.replace(complete, process=process)
        handle = create_init.start(complete, runtime_options, interfaces)
    except JaulaError:
        oci_delete.run_poststop(args, record, spec)
        raise
    finally:
        if listener is not None:
            listener.close()
    for warning in handle.warnings:
        args.log.warning(warning)
    return handle


def _notify_mount(container: Container) -> runtime_spec.Mount:
    """Return the mount of the directory of the container's notify socket."""
    return runtime_spec.Mount(
        notify_socket.MOUNT_POINT,
        source=f"{container.path}/{notify_socket.DIRECTORY}",
        options=notify_socket.MOUNT_OPTIONS,
    )


def _refuse_frozen(driver: CgroupDriver, path: str) -> None:
    """Refuse an existing cgroup that is frozen.

    :raises Conflict: when it is.
    """
    try:
        with driver.open(path) as cgroup:
            if cgroup.frozen():
                raise Conflict(f"cgroup {path} exists and is frozen", hint="thaw or remove it")
    except NotFound:
        return  # as usual: it is created next


def _caller_terminal_size() -> tuple[int, int]:
    from jaula.oci.foreground import terminal_size

    return terminal_size()


def _publish(
    args: CommandArgs,
    container: Container,
    record: Record,
    handle: ProcessHandle,
    driver: CgroupDriver,
) -> None:
    """Record init, and pass its terminal, pidfd and pid to the caller."""
    options = args.options
    args.log.step(f"record process {handle.pid}")
    record.pid = handle.pid
    record.start_time = process_facts(handle.pid)[1]
    with driver.open(record.cgroup) as cgroup:
        record.cgroup_paths = cgroup.locations()
    container.write(STATE, record.encode())
    if handle.master >= 0 and options.get("console-socket"):
        console.send(options.get("console-socket"), handle.master)
    if options.get("pidfd-socket"):
        console.send_pidfd(options.get("pidfd-socket"), handle.pid)
    if options.get("pid-file"):
        console.write_pid(options.get("pid-file"), handle.pid)


def _check_console(terminal: bool, socket: str, *, foreground: bool) -> None:
    if terminal and not socket and not foreground:
        raise InvalidRequest(
            "cannot allocate a terminal without a console socket when detached",
            hint="use --console-socket, or set process.terminal to false",
        )
    if socket and not terminal:
        raise InvalidRequest(
            "cannot use a console socket for a process without a terminal",
            hint="set process.terminal to true, or omit --console-socket",
        )


def _cgroup_path(spec: runtime_spec.Spec, container_id: str, settings: Settings) -> str:
    """Return the cgroup's path below each hierarchy's mount point."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = file.read()
    return cgroup_path.resolve(
        spec.linux.cgroups_path if spec.linux else None,
        container_id,
        systemd=settings.systemd_cgroup,
        rootless=settings.rootless,
        own=own,
    )


def _with_device_rules(spec: runtime_spec.Spec, settings: Settings) -> runtime_spec.Spec:
    """Return the spec with rules for the default devices; a rootless container gets none."""
    if settings.rootless:
        return spec
    linux = spec.linux or runtime_spec.Linux()
    resources = linux.resources or runtime_spec.Resources()
    resources = structs.replace(resources, devices=with_default_devices(resources.devices))
    return structs.replace(spec, linux=structs.replace(linux, resources=resources))
