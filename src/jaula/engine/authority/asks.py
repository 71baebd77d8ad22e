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
from jaula.engine import links, mountpoints, volume_sources
from jaula.engine.specbuild import security, sharing
from jaula.engine.specbuild.sharing import Kind as Had
from jaula.logs.drivers import syslog
from jaula.security import capabilities, landlock, masked_paths
from jaula.security.lsm import apparmor_profile
from jaula.spec.api import ContainerCreate, ExecCreate, HostConfig, Resources
from jaula.spec.api_networks import NetworkCreate
from jaula.state.records import ContainerRecord, MountRecord


class Kind(StrEnum):
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


class Ask(msgspec.Struct, frozen=True):
    """One relaxation. ``value`` is a path, a name or an option; empty where the kind says it all.

    ``writable`` is for mounts; ``runtime`` says that another runtime than our own would do it.
    """

    kind: Kind
    value: str = ""
    writable: bool = True
    foreign: bool = False

    def __str__(self) -> str:
        if self.kind is Kind.HOST_MOUNT and not self.writable:
            return f"{self.kind}={self.value}:ro"
        return f"{self.kind}={self.value}" if self.value else str(self.kind)


SYSTEM_PATHS = "systempaths=unconfined"
_DEFAULTS = frozenset(capabilities.DEFAULT)
# Annotations that the systemd driver obeys; another runtime may obey any.
_OBEYED = ("org.systemd.property.",)


def of_create(body: ContainerCreate) -> tuple[Ask, ...]:
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


def of_record(record: ContainerRecord) -> tuple[Ask, ...]:
    """A container that was made: its request, and what it has by ``--volumes-from``."""
    body = record.body
    made = (*of_create(body), *of_mounts(record.mounts, body.host_config.runtime))
    return tuple(dict.fromkeys(made))


def of_mounts(
    mounts: Iterable[MountRecord], runtime: str, *, read_only: bool = False
) -> tuple[Ask, ...]:
    """Directories of the host among a container's mounts, for a container of this runtime."""
    foreign = runtime not in ("", OWN_RUNTIME)
    return tuple(
        Ask(
            Kind.HOST_MOUNT,
            mount.source,
            writable=not (read_only or mount.read_only),
            foreign=foreign,
        )
        for mount in mounts
        if mount.type == "bind"
    )


def of_update(body: Resources) -> tuple[Ask, ...]:
    """The limits of a container that runs: only devices and its place are more than limits."""
    cgroup = (Ask(Kind.CGROUP_PARENT, body.cgroup_parent),) if body.cgroup_parent else ()
    return (*_devices(body), *cgroup)


def of_network(body: NetworkCreate) -> tuple[Ask, ...]:
    """A network: addresses of the person's choice would take the host's way to others with them."""
    chosen = body.ipam.config if body.ipam is not None else ()
    return (
        *(Ask(Kind.NETWORK_OPTION, f"subnet={pool.subnet}") for pool in chosen if pool.subnet),
        *(Ask(Kind.NETWORK_OPTION, name) for name in body.options),
    )


def of_volume(options: Mapping[str, str]) -> tuple[Ask, ...]:
    """A volume that is a mount of something of the host or of the network.

    The engine mounts it with root's rights and follows the links on the way, so a directory of the
    host is as a device here, whatever mounts somebody may ask for.
    """
    source = volume_sources.parse(options)
    if source is None or source.in_memory:
        return ()
    return (Ask(Kind.DEVICE, source.device),)


def of_exec(body: ExecCreate) -> tuple[Ask, ...]:
    """A further process."""
    return (Ask(Kind.PRIVILEGED),) if body.privileged else ()


def _privileges(host: HostConfig) -> Iterator[Ask]:
    if host.privileged:
        yield Ask(Kind.PRIVILEGED)
    for name in host.cap_add:
        if name.upper() in ("ALL", "CAP_ALL"):
            yield Ask(Kind.CAPABILITY, "ALL")
        elif (full := capabilities.canonical(name)) not in _DEFAULTS:
            yield Ask(Kind.CAPABILITY, full.removeprefix("CAP_"))


def _namespaces(host: HostConfig) -> Iterator[Ask]:
    shares = sharing.decide(host)
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
            yield Ask(Kind.HOST_NAMESPACE, name)
        elif share.container:
            yield Ask(Kind.OTHERS, share.container)
    for text in host.volumes_from:
        yield Ask(Kind.OTHERS, text.partition(":")[0])
    if links.by_address(host.network_mode):  # they pass on the other's variables
        for text in host.links:
            yield Ask(Kind.OTHERS, links.parse(text).ref)


def _mounts(body: ContainerCreate) -> Iterator[Ask]:
    foreign = body.host_config.runtime not in ("", OWN_RUNTIME)
    for wish in mountpoints.wishes(body):
        mount = wish.mount
        yield from of_volume(wish.driver_opts)
        if mount.type == "bind":
            yield Ask(Kind.HOST_MOUNT, mount.source, writable=not mount.read_only, foreign=foreign)
            if mount.propagation in ("shared", "rshared"):
                yield Ask(Kind.SECURITY_OPTION, f"propagation={mount.propagation}")
            if {"z", "Z"} & set(mount.mode.split(",")):
                yield Ask(Kind.SECURITY_OPTION, "relabel")


def _devices(host: Resources) -> Iterator[Ask]:
    for mapping in host.devices:
        yield Ask(Kind.DEVICE, mapping.path_on_host)
    for rule in host.device_cgroup_rules:
        yield Ask(Kind.DEVICE, rule)
    for request in host.device_requests:
        yield Ask(Kind.DEVICE, request.driver or "request")


def _security(host: HostConfig) -> Iterator[Ask]:
    options = security.parse(host.security_opt)
    if options.seccomp == security.UNCONFINED:
        yield Ask(Kind.SECURITY_OPTION, "seccomp=unconfined")
    elif options.seccomp not in ("", "builtin", "default"):
        yield Ask(Kind.SECURITY_OPTION, "seccomp=profile")
    for name in options.apparmor:
        if name != apparmor_profile.NAME:
            yield Ask(Kind.SECURITY_OPTION, f"apparmor={name}")
    for label in options.labels:
        yield Ask(Kind.SECURITY_OPTION, f"label={label}")
    if landlock.parse(options.landlock).off:
        yield Ask(Kind.SECURITY_OPTION, "landlock=off")
    for path in options.unmask:
        yield Ask(Kind.SECURITY_OPTION, f"unmask={path}")
    if options.system_paths:
        yield Ask(Kind.SECURITY_OPTION, SYSTEM_PATHS)
    for given, usual in (
        (host.masked_paths, masked_paths.MASKED_PATHS),
        (host.readonly_paths, masked_paths.READONLY_PATHS),
    ):
        if given is not None and not set(given) >= set(usual):
            yield Ask(Kind.SECURITY_OPTION, SYSTEM_PATHS)


def _logging(host: HostConfig) -> Iterator[Ask]:
    """Files of the host that a log driver reads."""
    for path in syslog.files_of(host.log_config.config):
        yield Ask(Kind.HOST_MOUNT, path, writable=False)


def _placement(host: HostConfig) -> Iterator[Ask]:
    if host.cgroup_parent:
        yield Ask(Kind.CGROUP_PARENT, host.cgroup_parent)
    if host.oom_score_adj < 0:
        yield Ask(Kind.OOM_SCORE, str(host.oom_score_adj))
    foreign = host.runtime not in ("", OWN_RUNTIME)
    for name in host.annotations:
        if foreign or name.startswith(_OBEYED):
            yield Ask(Kind.ANNOTATION, name)
