"""What a request asks for beyond the defaults of a container: each relaxation by its name. Pure.

The functions read the decoded request, the same value that the use case is given, with the same
parsers (mounts, security options, sharing): there is no second reading that could come to another
result (CVE-2024-41110). What cannot be parsed raises the parser's ``InvalidRequest``.

The names are used in the policy file, in refusals and in the audit log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.engine.networks import links
from jaula.engine.oci_spec import namespaces, security
from jaula.engine.oci_spec.namespaces import NamespaceMode as Had
from jaula.engine.volumes import local_driver, mount_spec
from jaula.logs import options as log_options
from jaula.security import capabilities, landlock, masked_paths
from jaula.security.lsm import apparmor_profile
from jaula.spec.api import ContainerCreate, ExecCreate, HostConfig, Resources
from jaula.spec.api_networks import NetworkCreate
from jaula.state.records import ContainerRecord, MountRecord


class Relaxation(StrEnum):
    """The kinds of relaxation; each is a key of a rule."""

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
    OTHERS = "others"  # something of a container that may be another person's


class Privilege(msgspec.Struct, frozen=True):
    """One relaxation. ``value`` is a path, a name or an option; empty where the kind says it all.

    ``writable`` is for mounts; ``runtime`` says that another runtime than our own would do it.
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
_DEFAULTS = frozenset(capabilities.DEFAULT)
# Annotations that the systemd driver obeys; another runtime may obey any.
_OBEYED = ("org.systemd.property.",)


def of_create(body: ContainerCreate) -> tuple[Privilege, ...]:
    """Everything that a new container is to have beyond the defaults."""
    host = body.host_config
    return (
        *_privileges(host),
        *_namespaces(host),
        *_mounts(body),
        *_devices(host),
        *_security(host),
        *_placement(host),
        *_logging(host),
    )


def of_record(record: ContainerRecord) -> tuple[Privilege, ...]:
    """A container that was made: its request, and what it has by ``--volumes-from``."""
    body = record.body
    made = (*of_create(body), *of_mounts(record.mounts, body.host_config.runtime))
    return tuple(dict.fromkeys(made))


def of_mounts(
    mounts: Iterable[MountRecord], runtime: str, *, read_only: bool = False
) -> tuple[Privilege, ...]:
    """Directories of the host among a container's mounts, for a container of this runtime."""
    foreign = runtime not in ("", OWN_RUNTIME)
    return tuple(
        Privilege(
            Relaxation.HOST_MOUNT,
            mount.source,
            writable=not (read_only or mount.read_only),
            foreign=foreign,
        )
        for mount in mounts
        if mount.type == "bind"
    )


def of_update(body: Resources) -> tuple[Privilege, ...]:
    """The limits of a container that runs: only devices and its place are more than limits."""
    cgroup = (
        (Privilege(Relaxation.CGROUP_PARENT, body.cgroup_parent),) if body.cgroup_parent else ()
    )
    return (*_devices(body), *cgroup)


def of_network(body: NetworkCreate) -> tuple[Privilege, ...]:
    """A network: addresses of the person's choice would take the host's way to others with them."""
    chosen = body.ipam.config if body.ipam is not None else ()
    return (
        *(
            Privilege(Relaxation.NETWORK_OPTION, f"subnet={pool.subnet}")
            for pool in chosen
            if pool.subnet
        ),
        *(Privilege(Relaxation.NETWORK_OPTION, name) for name in body.options),
    )


def of_volume(options: Mapping[str, str]) -> tuple[Privilege, ...]:
    """A volume that is a mount of something of the host or of the network.

    The engine mounts it with root's rights and follows the links on the way, so a directory of the
    host is as a device here, whatever mounts somebody may ask for.
    """
    source = local_driver.parse(options)
    if source is None or source.in_memory:
        return ()
    return (Privilege(Relaxation.DEVICE, source.device),)


def of_exec(body: ExecCreate) -> tuple[Privilege, ...]:
    """A further process."""
    return (Privilege(Relaxation.PRIVILEGED),) if body.privileged else ()


def _privileges(host: HostConfig) -> Iterator[Privilege]:
    if host.privileged:
        yield Privilege(Relaxation.PRIVILEGED)
    for name in host.cap_add:
        if name.upper() in ("ALL", "CAP_ALL"):
            yield Privilege(Relaxation.CAPABILITY, "ALL")
        elif (full := capabilities.canonical(name)) not in _DEFAULTS:
            yield Privilege(Relaxation.CAPABILITY, full.removeprefix("CAP_"))


def _namespaces(host: HostConfig) -> Iterator[Privilege]:
    shares = namespaces.decide(host)
    kinds = {
        "user": shares.user,
        "pid": shares.pid,
        "ipc": shares.ipc,
        "uts": shares.uts,
        "cgroup": shares.cgroup,
        "network": shares.net,
    }
    for name, share in kinds.items():
        if share.kind is Had.HOST:
            yield Privilege(Relaxation.HOST_NAMESPACE, name)
        elif share.container:
            yield Privilege(Relaxation.OTHERS, share.container)
    for text in host.volumes_from:
        yield Privilege(Relaxation.OTHERS, text.partition(":")[0])
    if links.by_address(host.network_mode):  # they pass on the other's variables
        for text in host.links:
            yield Privilege(Relaxation.OTHERS, links.parse(text).ref)


def _mounts(body: ContainerCreate) -> Iterator[Privilege]:
    foreign = body.host_config.runtime not in ("", OWN_RUNTIME)
    for wish in mount_spec.wishes(body):
        mount = wish.mount
        yield from of_volume(wish.driver_opts)
        if mount.type == "bind":
            yield Privilege(
                Relaxation.HOST_MOUNT, mount.source, writable=not mount.read_only, foreign=foreign
            )
            if mount.propagation in ("shared", "rshared"):
                yield Privilege(Relaxation.SECURITY_OPTION, f"propagation={mount.propagation}")
            if {"z", "Z"} & set(mount.mode.split(",")):
                yield Privilege(Relaxation.SECURITY_OPTION, "relabel")


def _devices(host: Resources) -> Iterator[Privilege]:
    for mapping in host.devices:
        yield Privilege(Relaxation.DEVICE, mapping.path_on_host)
    for rule in host.device_cgroup_rules:
        yield Privilege(Relaxation.DEVICE, rule)
    for request in host.device_requests:
        yield Privilege(Relaxation.DEVICE, request.driver or "request")


def _security(host: HostConfig) -> Iterator[Privilege]:
    options = security.parse(host.security_opt)
    if options.seccomp == security.UNCONFINED:
        yield Privilege(Relaxation.SECURITY_OPTION, "seccomp=unconfined")
    elif options.seccomp not in ("", "builtin", "default"):
        yield Privilege(Relaxation.SECURITY_OPTION, "seccomp=profile")
    for name in options.apparmor:
        if name != apparmor_profile.NAME:
            yield Privilege(Relaxation.SECURITY_OPTION, f"apparmor={name}")
    for label in options.labels:
        yield Privilege(Relaxation.SECURITY_OPTION, f"label={label}")
    if landlock.parse(options.landlock).off:
        yield Privilege(Relaxation.SECURITY_OPTION, "landlock=off")
    for path in options.unmask:
        yield Privilege(Relaxation.SECURITY_OPTION, f"unmask={path}")
    if options.system_paths:
        yield Privilege(Relaxation.SECURITY_OPTION, SYSTEM_PATHS)
    for given, usual in (
        (host.masked_paths, masked_paths.MASKED_PATHS),
        (host.readonly_paths, masked_paths.READONLY_PATHS),
    ):
        if given is not None and not set(given) >= set(usual):
            yield Privilege(Relaxation.SECURITY_OPTION, SYSTEM_PATHS)


def _logging(host: HostConfig) -> Iterator[Privilege]:
    """Files of the host that a log driver reads."""
    for path in log_options.host_files(host.log_config.config):
        yield Privilege(Relaxation.HOST_MOUNT, path, writable=False)


def _placement(host: HostConfig) -> Iterator[Privilege]:
    if host.cgroup_parent:
        yield Privilege(Relaxation.CGROUP_PARENT, host.cgroup_parent)
    if host.oom_score_adj < 0:
        yield Privilege(Relaxation.OOM_SCORE, str(host.oom_score_adj))
    foreign = host.runtime not in ("", OWN_RUNTIME)
    for name in host.annotations:
        if foreign or name.startswith(_OBEYED):
            yield Privilege(Relaxation.ANNOTATION, name)
