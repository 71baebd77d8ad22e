"""``--profile honeypot``: what the request of a honeypot may be, and the hook that supervises it.

A honeypot has the network mode ``none``. Its supervisor (:mod:`jaula.features.honeypot.supervisor`)
gives it one link, to a sink. So without the supervisor it has no network at all. Every part of a
request that would open the confinement is an error: a honeypot that an option has weakened is a
host for intruders.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.errors import InvalidRequest, Unavailable
from jaula.features.honeypot import run_directory
from jaula.spec.api_documents import ContainerCreate, Ulimit
from jaula.spec.endpoint_record import PublishedPort
from jaula.spec.rootfs import OverlayRoot, RootSource
from jaula.spec.runtime_spec import Hook, Hooks, Spec

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.runtime.shim_protocol import StartRequest
    from jaula.state.container_records import (
        ContainerRecord,
        PortMapping,
        ResolvedRequest,
        StartIntent,
    )

NAME = run_directory.NAME
# Enough for login services and shells; without raw sockets, device nodes and file capabilities.
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
    "SYS_CHROOT",
)
MEMORY = 512 << 20  # bytes, swap included
PIDS = 256
CPUS = 1_000_000_000  # nanoseconds of processor time in a second
FILE_SIZE = 128 << 20  # bytes of one file (RLIMIT_FSIZE)
TMPFS = {"/tmp": "mode=1777,size=64m,exec", "/var/tmp": "mode=1777,size=64m,exec"}
SHM = 16 << 20  # bytes
_HOOK_TIMEOUT = 30  # seconds
_FINISH_TIMEOUT = 40.0  # seconds for the supervisor to write its index
_POLL = 0.05  # seconds


def complete(body: ContainerCreate) -> Iterator[tuple[str, Any]]:
    """Return the members of ``HostConfig`` that the preset sets. Pure.

    :raises InvalidRequest: when the request opens the confinement.
    """
    host = body.host_config
    for problem in _problems(body):
        raise InvalidRequest(
            f"{problem} is not possible with the profile honeypot",
            hint="leave it out: a honeypot has no way to the host or to other containers",
        )
    yield "network_mode", "none"
    yield "cap_drop", ("ALL",)
    yield "cap_add", CAPABILITIES
    yield "security_opt", tuple(dict.fromkeys((*host.security_opt, "no-new-privileges")))
    yield "dns", (run_directory.GATEWAY,)
    if host.pids_limit is None or not 0 < host.pids_limit <= PIDS:
        yield "pids_limit", PIDS
    memory = host.memory if 0 < host.memory <= MEMORY else MEMORY
    yield "memory", memory
    yield "memory_swap", memory
    if not 0 < host.nano_cpus <= CPUS:
        yield "nano_cpus", CPUS
    if not 0 < host.shm_size <= SHM:
        yield "shm_size", SHM
    kept = tuple(limit for limit in host.ulimits if limit.name not in ("fsize", "core"))
    size = Ulimit(name="fsize", soft=FILE_SIZE, hard=FILE_SIZE)
    yield "ulimits", (*kept, size, Ulimit(name="core", soft=0, hard=0))
    yield "tmpfs", dict(TMPFS)


def _problems(body: ContainerCreate) -> Iterator[str]:
    """Yield the options of a request that open the confinement. Pure."""
    host = body.host_config
    unsafe: tuple[tuple[str, object], ...] = (
        ("--privileged", host.privileged),
        ("--cap-add", set(host.cap_add) - set(CAPABILITIES)),
        ("a mount or volume", host.binds or host.mounts or host.volumes_from),
        ("--tmpfs", set(host.tmpfs.items()) - set(TMPFS.items())),
        ("--device", host.devices or host.device_requests or host.device_cgroup_rules),
        ("--network", host.network_mode not in ("", "default", "none")),
        ("--network", set(body.networking_config.endpoints_config) - {"none", "default"}),
        ("--dns", set(host.dns) - {run_directory.GATEWAY}),
        ("--add-host", host.extra_hosts),
        ("--link", host.links),
        ("--pid", host.pid_mode),
        ("--ipc", host.ipc_mode not in ("", "private", "none")),
        ("--uts", host.uts_mode),
        ("--userns", host.userns_mode),
        ("--cgroupns=host", host.cgroupns_mode == "host"),
        ("--cgroup-parent", host.cgroup_parent),
        ("--security-opt", set(host.security_opt) - {"no-new-privileges"}),
        ("a list of masked paths", host.masked_paths is not None),
        ("a list of read-only paths", host.readonly_paths is not None),
        ("--secret", host.secrets or host.configs),
        ("--sysctl", host.sysctls),
        ("--runtime", host.runtime not in ("", OWN_RUNTIME)),
        ("--oom-kill-disable", host.oom_kill_disable),
        ("-P", host.publish_all_ports),
    )
    yield from (name for name, value in unsafe if value)


def ports(mappings: tuple[PortMapping, ...]) -> tuple[PublishedPort, ...]:
    """Return the ports that the sink relays. Pure.

    :raises InvalidRequest: when a port is not TCP or has no number on the host.
    """
    for mapping in mappings:
        if mapping.protocol != "tcp":
            raise InvalidRequest(
                f"a honeypot cannot publish {mapping.container_port}/{mapping.protocol}",
                hint="its sink relays TCP only",
            )
        if mapping.host_port is None or mapping.host_port_end is not None:
            raise InvalidRequest(
                f"port {mapping.container_port} of a honeypot needs a port of the host",
                hint=f"-p 2222:{mapping.container_port}",
            )
    return tuple(
        PublishedPort(m.container_port, m.protocol, m.host_ip, m.host_port or 0) for m in mappings
    )


def check(services: Services, body: ContainerCreate, resolved: ResolvedRequest) -> None:
    """Check that a honeypot can be created here.

    :raises InvalidRequest: when the engine is rootless, or a port cannot be published.
    """
    if services.host.rootless:
        raise InvalidRequest(
            "the profile honeypot needs an engine that runs as root",
            hint="a rootless engine cannot record system calls or watch files",
        )
    ports(resolved.ports)


def supervise(services: Services, record: ContainerRecord, root: RootSource, spec: Spec) -> Spec:
    """Return the spec of a start with the hook of a supervisor, and the directory of its run made.

    :raises Unavailable: when it cannot be created.
    """
    paths = services.config.paths
    mount_point = f"{paths.container_run(record.id)}/rootfs"
    return supervised(spec, new_run(paths.honeypots, record, root, mount_point))


def record_sessions(
    services: Services, record: ContainerRecord, intent: StartIntent, request: StartRequest
) -> tuple[StartIntent, StartRequest]:
    """Return a start whose sessions are recorded, with the ports that the sink relays."""
    run = max(_runs(services.config.paths.honeypots, record.id), key=os.path.getctime)
    return (
        msgspec.structs.replace(intent, ports=ports(record.resolved.ports)),
        msgspec.structs.replace(request, sessions=f"{run}/{run_directory.SESSIONS}"),
    )


def new_run(directory: Path, record: ContainerRecord, root: RootSource, mount_point: str) -> str:
    """Create the directory of a run, and return its path.

    :raises Unavailable: when it cannot be created.
    """
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    request = run_directory.Request(
        container=run_directory.Subject(record.id, record.name, record.asked_image, record.image),
        mount_point=mount_point,
        upper=(root.upper or "") if isinstance(root, OverlayRoot) else "",
        ports=ports(record.resolved.ports),
    )
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for number in range(1, 100):
            path = directory / f"{record.name}-{moment}{f'-{number}' if number > 1 else ''}"
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                continue
            os.mkdir(path / run_directory.SESSIONS, 0o700)
            with open(path / run_directory.REQUEST, "xb") as file:
                file.write(msgspec.json.encode(request))
            return str(path)
    except OSError as error:
        raise Unavailable(
            f"cannot create the record of honeypot {record.name}: {error.strerror}"
        ) from error
    raise Unavailable(f"too many runs of honeypot {record.name} in one second")


def supervised(spec: Spec, directory: str) -> Spec:
    """Return the spec with the hook that starts the supervisor before the first program. Pure."""
    hooks = spec.hooks or Hooks()
    hook = Hook(
        path=sys.executable,
        args=(sys.executable, "-s", "-P", "-X", "utf8", "-m", "jaula.features.honeypot", directory),
        env=(
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            f"PYTHONPATH={os.pathsep.join(path for path in sys.path if path)}",
        ),
        timeout=_HOOK_TIMEOUT,
    )
    created = (*hooks.create_runtime, hook)
    return msgspec.structs.replace(
        spec, hooks=msgspec.structs.replace(hooks, create_runtime=created)
    )


def wait(services: Services, record: ContainerRecord) -> None:
    """Wait until the supervisors of a container have written their indexes.

    Called before the files of a container are removed. A supervisor that hangs is not waited for
    after a limit.
    """
    deadline = time.monotonic() + _FINISH_TIMEOUT
    for path in _runs(services.config.paths.honeypots, record.id):
        try:
            fd = os.open(f"{path}/{run_directory.LOCK}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(_POLL)
                else:
                    break
        finally:
            os.close(fd)


def _runs(directory: Path, container_id: str) -> Iterator[str]:
    """Yield the directories of the runs of a container."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
                with open(f"{entry.path}/{run_directory.REQUEST}", "rb") as file:
                    request = msgspec.json.decode(file.read(), type=run_directory.Request)
                if request.container.id == container_id:
                    yield entry.path


def discard(services: Services, record: ContainerRecord) -> None:
    """Remove the directories of runs that have not begun."""
    for path in _runs(services.config.paths.honeypots, record.id):
        if not os.path.exists(f"{path}/{run_directory.INDEX}"):
            shutil.rmtree(path, ignore_errors=True)
