"""Making a container: everything is checked, then made; whatever fails undoes what was made.

Source: Docker Engine API 1.45, ``POST /containers/create``.
"""

from __future__ import annotations

import asyncio
import os
import platform as host_platform
import shutil
import time

import msgspec

from jaula.cgroups import paths as cgroup_paths
from jaula.config import OWN_RUNTIME
from jaula.engine.containers import (
    health,
    image_config,
    presets,
    restart_policy,
    selinux,
    storage_opt,
)
from jaula.engine.containers.log_config import log_options
from jaula.engine.model import names
from jaula.engine.model.container import Container
from jaula.engine.model.services import Services
from jaula.engine.networks import endpoints, links, port_bindings
from jaula.engine.oci_spec import host as oci_spec_host
from jaula.engine.oci_spec import namespaces, process, resources, security, spec
from jaula.engine.secrets import mount
from jaula.engine.userns import keep_id
from jaula.engine.volumes import mount_spec
from jaula.engine.volumes.create import VolumeMounter
from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable
from jaula.images.registry import manifest
from jaula.network import etc_files
from jaula.spec import signals
from jaula.spec.api import ContainerCreate, HostConfig
from jaula.spec.api_params import ContainerCreated
from jaula.state.records import ContainerRecord

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64"}
_HOSTNAME_LIMIT = 63  # sethostname(2) allows 64; Docker's limit is RFC 1123's


async def create(
    parts: Services,
    body: ContainerCreate,
    name: str | None,
    platform: str | None,
    *,
    owner: tuple[str, int] = ("0", 0),
    beneath: tuple[str, ...] = (),
) -> ContainerCreated:
    """Make a container that is ready to start.

    ``owner`` is who asks, with its group; ``beneath`` are the host directories below which its
    mounts may not follow a symbolic link.

    :raises NotFound: no such image, or a container to share with.
    :raises Conflict: the name is in use.
    :raises InvalidRequest: anything else in the request that cannot be.
    """
    body = _without_zeros(body)
    body = presets.apply(body, parts.config.default_profile, parts.host.landlock)
    body = keep_id.completed(body, owner, rootless=parts.host.rootless)
    if not body.image:
        raise InvalidRequest("config cannot be empty in order to create a container")
    _check_platform(platform, body.image)
    if name:
        name = names.check_name(name)
        parts.registry.check_free(name)
    image = parts.images.resolve(body.image)
    manifest.check_platform(manifest.parse_platform(platform), image.platform, body.image)
    parts.gate.check_run(image, body.image)
    merged = image_config.merge(body, image.config)
    merged = msgspec.structs.replace(merged, host_config=_joined(parts, merged.host_config))
    merged = mount.resolved(parts, merged)
    members = _members(parts, merged)
    container_id = names.new_id()
    warnings = check(parts, merged)
    chosen = name or names.random_name(parts.registry.names)
    parts.registry.reserve(chosen, container_id)
    mounting = VolumeMounter(parts)
    directory = parts.config.paths.container(container_id)
    try:
        record = ContainerRecord(
            id=container_id,
            name=chosen,
            created=time.time_ns(),
            body=merged,
            image=image.id,
            layers=tuple(image.layers),
            args=process.arguments(merged),
            hostname=_hostname(parts, merged, container_id),
            networks=members,
            storage_driver=parts.snapshots.name,
            warnings=warnings,
            owner=owner[0],
            owner_gid=owner[1],
            beneath=beneath,
            level=selinux.take_level(parts, container_id, merged.host_config),
        )
        os.makedirs(directory, mode=0o710, exist_ok=True)
        size = storage_opt.size_limit(merged.host_config.storage_opt)
        if parts.snapshots.instant:
            parts.snapshots.create(container_id, record.layers, size=size)
        else:
            await asyncio.to_thread(parts.snapshots.create, container_id, record.layers, size=size)
        wishes = mount_spec.wishes(merged)
        for wish in wishes:
            selinux.check_mount(parts, wish.mount)
        if wishes or merged.host_config.volumes_from:
            mounts = await mounting.realise(record, wishes)
            record = msgspec.structs.replace(record, mounts=mounts)
        container = Container(record)
        parts.registry.add(container)
    except BaseException as error:
        parts.registry.release(chosen, container_id)
        parts.registry.free_level(container_id)
        await asyncio.to_thread(_undo, parts, container_id)
        mounting.undo()
        if isinstance(error, OSError):
            raise Unavailable(
                f"cannot make the container's directory {directory}: {error.strerror}",
                hint="check free space and permissions of the root directory",
            ) from error
        raise
    parts.events.emit("container", "create", container_id, attributes(record))
    return ContainerCreated(container_id, warnings)


def attributes(record: ContainerRecord) -> dict[str, str]:
    """What every event of a container says about it: its labels, image and name."""
    return {**record.body.labels, "image": record.body.image, "name": record.name}


def check(parts: Services, body: ContainerCreate) -> tuple[str, ...]:
    """Refuse a request that could not be started; return its warnings.

    :raises InvalidRequest: what is wrong.
    """
    host = body.host_config
    foreign = parts.runtimes.choose(host.runtime) != OWN_RUNTIME
    process.arguments(body)
    process.working_directory(body.working_dir)
    shares = namespaces.decide(host)
    warnings = [
        *resources.check(host, parts.host),
        *security.check(host, oci_spec_host.fresh(parts.host), foreign=foreign),
    ]
    if host.profile == presets.STRICT and not parts.host.landlock:
        warnings.append("This kernel has no Landlock, which is a part of the profile strict")
    spec.check_sysctls(host, shares)
    restart_policy.check(host.restart_policy, auto_remove=host.auto_remove)
    wished = port_bindings.wishes(body)
    if wished and not shares.network:
        if host.network_mode == "host":
            warnings.append("Published ports are discarded when using host network mode")
        elif host.network_mode.startswith("container:"):
            raise InvalidRequest(
                "conflicting options: port publishing and the container type network mode"
            )
    health.check(body.healthcheck)
    warnings += health.check_reaction(body)
    if host.network_mode.startswith("container:") and body.hostname:
        raise InvalidRequest("conflicting options: hostname and the network mode")
    if shares.uts.host and body.hostname:
        raise InvalidRequest("conflicting options: hostname and the UTS mode")
    links.check(parts, host.links, host.network_mode)
    if host.isolation not in ("", "default"):
        raise InvalidRequest(
            f"invalid isolation {host.isolation!r}", hint="the others are of Windows"
        )
    storage_opt.size_limit(host.storage_opt)
    if host.cgroup_parent:
        if not host.cgroup_parent.startswith("/"):
            raise InvalidRequest(f"invalid cgroup parent {host.cgroup_parent!r}: not absolute")
        cgroup_paths.relative(host.cgroup_parent.rstrip("/"))
    if body.domainname and not _is_host_name(body.domainname):
        raise InvalidRequest(f"invalid domain name: {body.domainname!r}")
    if host.oom_score_adj < -1000 or host.oom_score_adj > 1000:
        raise InvalidRequest(
            f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if host.shm_size < 0:
        raise InvalidRequest("SHM size can not be less than 0")
    if body.stop_signal:
        signals.parse(body.stop_signal)
    log_options(parts.config, host.log_config)
    for text in host.device_cgroup_rules:
        spec.cgroup_rule(text)
    for mapping in host.devices:
        spec.devices(mapping)
    for entry in host.extra_hosts:
        etc_files.parse_extra_host(entry)
    etc_files.resolv_conf("", dns=host.dns, search=host.dns_search, options=host.dns_options)
    return tuple(warnings)


def _without_zeros(body: ContainerCreate) -> ContainerCreate:
    """The docker command sends 0 where nobody gave a limit of processes: no wish for none."""
    host = body.host_config
    if host.pids_limit != 0:
        return body
    return msgspec.structs.replace(body, host_config=msgspec.structs.replace(host, pids_limit=None))


def _check_platform(platform: str | None, image: str) -> None:
    if not platform:
        return
    for part in platform.split("/"):
        if not part.isascii() or not part.replace("-", "").replace("_", "").isalnum():
            raise InvalidRequest(
                f'"{part[:80]}" is an invalid component of "{platform[:80]}"',
                hint="write OS[/ARCHITECTURE[/VARIANT]]",
            )
    machine = host_platform.machine()
    here = _ARCHITECTURES.get(machine, machine)
    system, _, architecture = platform.partition("/")
    if system != "linux" or (
        architecture and architecture.partition("/")[0] not in (here, machine)
    ):
        raise NotFound(
            f"image with reference {image} was found but does not match the specified platform:"
            f" wanted {platform}, actual: linux/{here}"
        )


def _joined(parts: Services, host: HostConfig) -> HostConfig:
    """The modes that name another container, with its id instead of its name; the runtime's name.

    Both are settled when the container is made, whatever is called so later.
    """
    changed = {"runtime": parts.runtimes.choose(host.runtime)}
    for field in ("network_mode", "pid_mode", "ipc_mode", "userns_mode"):
        kind, colon, ref = getattr(host, field).partition(":")
        if kind == "container" and colon and ref:
            try:
                changed[field] = f"container:{parts.registry.find(ref).id}"
            except NotFound as error:
                # 404 would make the docker command look for the image at a registry.
                raise InvalidRequest(error.message) from None
    return msgspec.structs.replace(host, **changed)


def _members(parts: Services, body: ContainerCreate) -> endpoints.Members:
    """The networks that the container is to be connected to."""
    try:
        members = endpoints.chosen(body, parts.networks.find)
    except NotFound as error:
        # 404 would make the docker command look for the image at a registry.
        raise InvalidRequest(
            error.message,
            hint="make it with network create; host, none and container:NAME are there too",
        ) from None
    for name, settings in members.items():
        endpoints.check(name, parts.networks.get(name), settings)
    return members


def _hostname(parts: Services, body: ContainerCreate, container_id: str) -> str:
    name = body.hostname
    if not name:
        host = body.host_config
        if host.network_mode == "host" or host.uts_mode == "host":
            return parts.host.hostname
        return names.short(container_id)
    if not _is_host_name(name):
        raise InvalidRequest(f"invalid hostname format: {name}")
    return name


def _is_host_name(name: str) -> bool:
    """Letters, digits and ``-._`` only: it becomes a line of the container's hosts file."""
    plain = name.replace("-", "").replace(".", "").replace("_", "")
    return len(name) <= _HOSTNAME_LIMIT and plain.isascii() and plain.isalnum()


def _undo(parts: Services, container_id: str) -> None:
    try:
        parts.snapshots.remove(container_id)
    except (JaulaError, FileNotFoundError):
        pass  # it may not have been made; the error that brought us here is the one to report
    shutil.rmtree(parts.config.paths.container(container_id), ignore_errors=True)
