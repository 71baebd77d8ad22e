"""Relaxations: what a request asks for beyond the defaults of a container, each by its name. Pure.

Containers are authorized from their :class:`~jaula.state.container_records.ResolvedRequest`, the
value that a start uses, and from members of the body that a start uses as they are. No function
here parses a create body: there is no second parse that could have another result (CVE-2024-41110).
Other requests are authorized from the decoded document that the use case gets.

The names are used in the policy file, in refusals and in the audit log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

import msgspec

from jaula.engine.networks import container_links
from jaula.engine.oci_spec import security_opt
from jaula.engine.volumes.mount_sources import parse_driver_options, sources_of
from jaula.logs import drivers as log_drivers
from jaula.logs import log_opt
from jaula.security import capability_sets, landlock_ruleset, masked_paths
from jaula.spec import apparmor_name
from jaula.spec.api_documents import ContainerCreate, ExecCreate, HostConfig, LogConfig, Resources
from jaula.spec.api_networks import NetworkCreate
from jaula.spec.pod import PodContainerUpdate, PodSandboxRequest
from jaula.state.container_records import (
    ENGINE_SOCKET,
    ContainerRecord,
    MountRecord,
    MountRequest,
    Namespaces,
    ResolvedRequest,
    Security,
    is_external,
    log_of,
)


class Relaxation(StrEnum):
    """The kinds of relaxation; each is a key of a policy rule."""

    HOST_MOUNT = "host-mount"
    HOST_NAMESPACE = "host-namespace"
    DEVICE = "device"
    CAPABILITY = "capability"
    PRIVILEGED = "privileged"
    SECURITY_OPTION = "security-option"
    CGROUP_PARENT = "cgroup-parent"
    OOM_SCORE = "oom-score-adj"
    ANNOTATION = "annotation"
    NETWORK_OPTION = "network-option"
    LOG_ADDRESS = "log-address"
    CHECKPOINT_DIRECTORY = "checkpoint-dir"
    ENGINE_SOCKET = "engine-socket"  # its value is the entry of the policy for the container
    OTHER_CONTAINERS = "others"  # something of a container that may belong to another user


class Privilege(msgspec.Struct, frozen=True):
    """One relaxation. ``value`` is a path, a name or an option, empty if the kind says it all.

    ``writable`` is for mounts; ``foreign`` says that an external runtime would run the container.
    """

    kind: Relaxation
    value: str = ""
    writable: bool = True
    foreign: bool = False

    def __str__(self) -> str:
        if self.kind is Relaxation.HOST_MOUNT and not self.writable:
            return f"{self.kind}={self.value}:ro"
        return f"{self.kind}={self.value}" if self.value else str(self.kind)


SYSTEM_PATHS = "systempaths=unconfined"
_DEFAULTS = frozenset(capability_sets.DEFAULT)
# Annotations that the systemd driver interprets; an external runtime may interpret any.
_INTERPRETED = ("org.systemd.property.",)


def of_request(
    body: ContainerCreate, resolved: ResolvedRequest, engine_socket: str = ""
) -> tuple[Privilege, ...]:
    """Return everything that a request asks for beyond the defaults.

    ``body`` has what needs no decision. ``engine_socket`` is the entry of the policy that applies
    to the container, '' if none does.
    """
    host = body.host_config
    return (
        *_privileges(resolved.security),
        *_namespaces(resolved.namespaces),
        *_containers(resolved),
        *_mounts(resolved, foreign=is_external(host.runtime)),
        *_devices(host),
        *_security(resolved.security),
        *_placement(host),
        *_logging(log_of(body, resolved)),
        *_engine_socket(resolved, engine_socket),
    )


def of_sandbox(
    request: PodSandboxRequest, body: ContainerCreate, resolved: ResolvedRequest
) -> tuple[Privilege, ...]:
    """Return everything that a pod asks for beyond the defaults.

    The engine itself sets the OOM score of a sandbox. A range of ids that the client chooses may
    be that of another user. The directory of the logs is created and written as root.
    """
    host = msgspec.structs.replace(body.host_config, oom_score_adj=0)
    privileges = of_request(msgspec.structs.replace(body, host_config=host), resolved)
    if request.ids is not None:
        privileges += (Privilege(Relaxation.HOST_NAMESPACE, "user"),)
    if request.log_directory:
        privileges += (Privilege(Relaxation.HOST_MOUNT, request.log_directory),)
    return privileges


def of_record(record: ContainerRecord) -> tuple[Privilege, ...]:
    """Return the privileges of an existing container, those of its host mounts included.

    A log server by name is one unless the container is bound to servers outside the host.
    """
    resolved = record.resolved
    log_name = None if record.outside_log else of_log_name(record.log)
    privileges = (
        *of_request(record.body, resolved, record.engine_socket),
        *of_mounts(record.mounts, foreign=record.external_runtime),
        *((log_name,) if log_name else ()),
    )
    return tuple(dict.fromkeys(privileges))


def of_mounts(
    mounts: Iterable[MountRecord], *, foreign: bool, read_only: bool = False
) -> tuple[Privilege, ...]:
    """Return the host directories among a container's mounts, and what they share with the host."""
    return tuple(
        privilege
        for mount in mounts
        if mount.type == "bind"
        for privilege in _bind(mount, foreign=foreign, read_only=read_only)
    )


def _bind(mount: MountRecord, *, foreign: bool, read_only: bool = False) -> Iterator[Privilege]:
    yield Privilege(
        Relaxation.HOST_MOUNT,
        mount.source,
        writable=not (read_only or mount.read_only),
        foreign=foreign,
    )
    if mount.shared:
        yield Privilege(Relaxation.SECURITY_OPTION, f"propagation={mount.propagation}")


def of_checkpoint_directory(path: str) -> tuple[Privilege, ...]:
    """Return the privilege of a ``--checkpoint-dir``; none for the engine's own directory.

    The engine writes and reads there as root.
    """
    return (Privilege(Relaxation.CHECKPOINT_DIRECTORY, path),) if path else ()


def of_descriptors() -> tuple[Privilege, ...]:
    """Return what sockets of the host for a program ask for."""
    return (Privilege(Relaxation.HOST_NAMESPACE, "network"),)


def of_update(body: Resources) -> tuple[Privilege, ...]:
    """Return the privileges of an update: what is more than a limit."""
    score = (body.oom_score_adj or 0) if isinstance(body, PodContainerUpdate) else 0
    return (*_devices(body), *_cgroup_parent(body.cgroup_parent), *_oom_score(score))


def _oom_score(score: int) -> tuple[Privilege, ...]:
    return (Privilege(Relaxation.OOM_SCORE, str(score)),) if score < 0 else ()


def _cgroup_parent(path: str) -> tuple[Privilege, ...]:
    """Return the privilege of a cgroup parent; a relative one is below the root, too."""
    name = path if path.startswith("/") else f"/{path}"
    return (Privilege(Relaxation.CGROUP_PARENT, name),) if path else ()


def of_edit(
    body: ContainerCreate, resolved: ResolvedRequest, mounts: tuple[MountRequest, ...]
) -> tuple[Privilege, ...]:
    """Return the privileges of mounts that are added to a container of this request."""
    added = msgspec.structs.replace(resolved, mounts=mounts)
    return tuple(_mounts(added, foreign=is_external(body.host_config.runtime)))


def of_network(body: NetworkCreate) -> tuple[Privilege, ...]:
    """Return the privileges of a network: its addresses could take over a route of the host."""
    pools = body.ipam.config if body.ipam is not None else ()
    return (
        *(
            Privilege(Relaxation.NETWORK_OPTION, f"subnet={pool.subnet}")
            for pool in pools
            if pool.subnet
        ),
        *(Privilege(Relaxation.NETWORK_OPTION, name) for name in body.options),
    )


def of_volume(options: Mapping[str, str]) -> tuple[Privilege, ...]:
    """Return the privileges of a volume that mounts something of the host or of the network.

    The engine mounts it as root and follows links in the path. So a host directory counts as a
    device here, whatever mounts the client may request.
    """
    source = parse_driver_options(options)
    if source is None or source.in_memory:
        return ()
    return tuple(Privilege(Relaxation.DEVICE, each) for each in sources_of(source))


def of_exec(body: ExecCreate) -> tuple[Privilege, ...]:
    """Return the privileges of an exec."""
    return (Privilege(Relaxation.PRIVILEGED),) if body.privileged else ()


def _privileges(requested: Security) -> Iterator[Privilege]:
    if requested.privileged:
        yield Privilege(Relaxation.PRIVILEGED)
    for name in requested.cap_add:
        if name.upper() in ("ALL", "CAP_ALL"):
            yield Privilege(Relaxation.CAPABILITY, "ALL")
        elif (full := capability_sets.canonical(name)) not in _DEFAULTS:
            yield Privilege(Relaxation.CAPABILITY, full.removeprefix("CAP_"))


def _namespaces(modes: Namespaces) -> Iterator[Privilege]:
    kinds = {
        "user": modes.user,
        "pid": modes.pid,
        "ipc": modes.ipc,
        "uts": modes.uts,
        "cgroup": modes.cgroup,
        "network": modes.net,
    }
    for name, mode in kinds.items():
        if mode.host:
            yield Privilege(Relaxation.HOST_NAMESPACE, name)
        elif mode.container:
            yield Privilege(Relaxation.OTHER_CONTAINERS, mode.container)


def _containers(resolved: ResolvedRequest) -> Iterator[Privilege]:
    """Yield other containers: ``--volumes-from``, and links, which pass on variables."""
    for source in resolved.volumes_from:
        yield Privilege(Relaxation.OTHER_CONTAINERS, source.container)
    if container_links.by_address(resolved.namespaces):
        for link in resolved.links:
            yield Privilege(Relaxation.OTHER_CONTAINERS, link.ref)


def _mounts(resolved: ResolvedRequest, *, foreign: bool) -> Iterator[Privilege]:
    for request in resolved.mounts:
        mount = request.mount
        yield from of_volume(request.driver_opts)
        if mount.type == "bind":
            yield from _bind(mount, foreign=foreign)
            if {"z", "Z"} & set(mount.mode.split(",")):
                yield Privilege(Relaxation.SECURITY_OPTION, "relabel")


def _devices(resources: Resources) -> Iterator[Privilege]:
    for mapping in resources.devices:
        yield Privilege(Relaxation.DEVICE, mapping.path_on_host)
    for rule in resources.device_cgroup_rules:
        yield Privilege(Relaxation.DEVICE, rule)
    for request in resources.device_requests:
        for name in request.device_ids or (request.driver or "gpu",):
            yield Privilege(Relaxation.DEVICE, name)


def _security(requested: Security) -> Iterator[Privilege]:
    options = requested.options
    if options.seccomp == security_opt.UNCONFINED:
        yield Privilege(Relaxation.SECURITY_OPTION, "seccomp=unconfined")
    elif options.seccomp not in ("", "builtin", "default"):
        yield Privilege(Relaxation.SECURITY_OPTION, "seccomp=profile")
    if options.seccomp_listener:
        yield Privilege(Relaxation.SECURITY_OPTION, "seccomp-listener")
    for name in options.apparmor:
        if name != apparmor_name.NAME:
            yield Privilege(Relaxation.SECURITY_OPTION, f"apparmor={name}")
    for label in options.labels:
        yield Privilege(Relaxation.SECURITY_OPTION, f"label={label}")
    if landlock_ruleset.parse(options.landlock).off:
        yield Privilege(Relaxation.SECURITY_OPTION, "landlock=off")
    for path in options.unmask:
        yield Privilege(Relaxation.SECURITY_OPTION, f"unmask={path}")
    if options.system_paths:
        yield Privilege(Relaxation.SECURITY_OPTION, SYSTEM_PATHS)
    for requested_paths, default_paths in (
        (requested.masked_paths, masked_paths.MASKED_PATHS),
        (requested.readonly_paths, masked_paths.READONLY_PATHS),
    ):
        if requested_paths is not None and not set(requested_paths) >= set(default_paths):
            yield Privilege(Relaxation.SECURITY_OPTION, SYSTEM_PATHS)


def _logging(log: LogConfig) -> Iterator[Privilege]:
    """Yield files of the host that a log driver reads, and the server if it is the host's."""
    for path in log_opt.host_files(log.config):
        yield Privilege(Relaxation.HOST_MOUNT, path, writable=False)
    address = log_drivers.address(log.type, log.config)
    if address is not None and address.of_host:
        yield Privilege(Relaxation.LOG_ADDRESS, str(address))


def of_log_name(log: LogConfig) -> Privilege | None:
    """Return the privilege of a log server by name, whose addresses may be the host's; else None.

    Without it the log driver refuses the host's addresses after it has resolved the name.
    """
    address = log_drivers.address(log.type, log.config)
    if address is None or address.of_host or not address.named:
        return None
    return Privilege(Relaxation.LOG_ADDRESS, str(address))


def has_engine_socket(resolved: ResolvedRequest) -> bool:
    """Return whether a request asks for an engine socket in the container."""
    return any(request.mount.type == ENGINE_SOCKET for request in resolved.mounts)


def _engine_socket(resolved: ResolvedRequest, entry: str) -> Iterator[Privilege]:
    if has_engine_socket(resolved):
        yield Privilege(Relaxation.ENGINE_SOCKET, entry)


def _placement(host: HostConfig) -> Iterator[Privilege]:
    yield from _cgroup_parent(host.cgroup_parent)
    yield from _oom_score(host.oom_score_adj)
    for name in host.annotations:
        if is_external(host.runtime) or name.startswith(_INTERPRETED):
            yield Privilege(Relaxation.ANNOTATION, name)
