"""Making a container: the part that ``create`` and ``run`` share.

The record is written before anything is made and again when init is there, so that whatever happens
in between ``delete --force`` finds what to remove.
"""

from __future__ import annotations

import os
import time

import msgspec
from msgspec import structs

from jaula.cgroups import cgroup_path
from jaula.cgroups.default_devices import with_default_devices
from jaula.errors import InvalidRequest, JaulaError
from jaula.oci import bundle as bundles
from jaula.oci import console, preserve_fds, services
from jaula.oci.args import SWITCH, VALUE, CommandArgs
from jaula.oci.commands import delete
from jaula.oci.container import CONFIG, STATE, Container, Record, check_id, process_facts
from jaula.oci.settings import Settings
from jaula.runtime import validation
from jaula.runtime.create import create
from jaula.runtime.create.process import ProcessHandle
from jaula.runtime.validation import host
from jaula.spec import runtime as oci
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
    """A container that was just made."""

    record: Record
    spec: oci.Spec
    born: ProcessHandle


def run(call: CommandArgs) -> int:
    """Create it; the caller becomes the parent of its init once this command has ended."""
    make(call, call.container_id(), waits=True)
    return 0


def make(
    call: CommandArgs, container_id: str, *, waits: bool, foreground: bool = False
) -> CreatedContainer:
    """Create a container; ``waits`` for ``start``, or its program runs at once.

    ``foreground`` keeps the terminal's master in ``born``. Raises a ``JaulaError``; then nothing
    is left of it.
    """
    options, settings = call.options, call.settings
    check_id(container_id)
    preserve = preserve_fds.count(options)
    bundle = os.path.realpath(options.get("bundle") or ".")
    spec = bundles.load(bundle)
    for warning in validation.check(spec):
        call.log.warning(warning)
    host.check(spec, host.facts())
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
    with Container.make(settings.root, container_id) as container:
        try:
            container.write(CONFIG, oci.encode(spec))
            container.write(STATE, record.encode())
            keeps = foreground and spec.process.terminal
            born = _launch(
                call, container, record, spec, waits=waits, preserve=preserve, keeps=keeps
            )
        except BaseException:
            container.remove()
            raise
        try:
            _announce(call, container, record, spec, born, foreground=foreground)
        except BaseException:
            delete.kill(record)
            delete.remove(call, container, record)
            raise
    return CreatedContainer(record, spec, born)


def _launch(
    call: CommandArgs,
    container: Container,
    record: Record,
    spec: oci.Spec,
    *,
    waits: bool,
    preserve: int,
    keeps: bool,
) -> ProcessHandle:
    """``keeps`` says that the caller keeps the program's terminal, and joins it to its own."""
    options = call.options
    waiting = container.listen() if waits else None
    try:
        terms = create.CreateOptions(
            state=record.state("creating"),
            root=DirectoryRoot(record.rootfs, id_mapped=False),
            mount_point=record.rootfs,
            cgroup=record.cgroup,
            stdio=(0, 1, 2),
            console=_size_of_caller() if keeps else (0, 0),
            preserve=preserve,
            start_socket=waiting.fileno() if waiting is not None else -1,
            seccomp_cache=services.seccomp_cache(call.settings),
            session_keyring=not options.on("no-new-keyring"),
            pivot=not options.on("no-pivot"),
            unprivileged=os.geteuid() != 0,
        )
        all_parts = services.load(call.settings, spec.annotations)
        born = create.start(_with_device_rules(spec, call.settings), terms, all_parts)
    except JaulaError:
        delete.poststop(call, record, spec)
        raise
    finally:
        if waiting is not None:
            waiting.close()
    for warning in born.warnings:
        call.log.warning(warning)
    return born


def _size_of_caller() -> tuple[int, int]:
    from jaula.oci.foreground import size

    return size()


def _announce(
    call: CommandArgs,
    container: Container,
    record: Record,
    spec: oci.Spec,
    born: ProcessHandle,
    *,
    foreground: bool,
) -> None:
    """Keep who the container is, and tell those who asked."""
    options = call.options
    record.pid = born.pid
    record.start_time = process_facts(born.pid)[1]
    driver = services.cgroup_driver(call.settings)
    with driver.open(record.cgroup) as cgroup:
        record.cgroup_paths = cgroup.locations()
    container.write(STATE, record.encode())
    if born.master >= 0 and options.get("console-socket"):
        console.send(options.get("console-socket"), born.master)
    if options.get("pidfd-socket"):
        console.send_pidfd(options.get("pidfd-socket"), born.pid)
    if options.get("pid-file"):
        console.write_pid(options.get("pid-file"), born.pid)


def _check_console(terminal: bool, socket: str, *, foreground: bool) -> None:
    if terminal and not socket and not foreground:
        raise InvalidRequest(
            "cannot allocate a terminal without a console socket when detached",
            hint="give --console-socket, or set process.terminal to false",
        )
    if socket and not terminal:
        raise InvalidRequest(
            "cannot use a console socket for a process without a terminal",
            hint="set process.terminal to true, or leave --console-socket out",
        )


def _cgroup_path(spec: oci.Spec, container_id: str, settings: Settings) -> str:
    """The cgroup's path below each hierarchy's mount point."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = file.read()
    return cgroup_path.place(
        spec.linux.cgroups_path if spec.linux else None,
        container_id,
        systemd=settings.systemd_cgroup,
        rootless=settings.rootless,
        own=own,
    )


def _with_device_rules(spec: oci.Spec, settings: Settings) -> oci.Spec:
    """The spec with rules for the devices that every container has; rootless there are none."""
    if settings.rootless:
        return spec
    linux = spec.linux or oci.Linux()
    resources = linux.resources or oci.Resources()
    resources = structs.replace(resources, devices=with_default_devices(resources.devices))
    return structs.replace(spec, linux=structs.replace(linux, resources=resources))
