"""``POST /containers/create``: resolve, authorize and check a request, then create the container.

Everything is checked before anything is created, and a failure removes what was created.

Source: Docker Engine API 1.45; moby ``daemon.merge`` for the image's configuration.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jaula import feature
from jaula.cgroups import cgroup_path as cgroup_paths
from jaula.engine.containers import health, presets, restart_policy, selinux
from jaula.engine.containers.log_config import log_options, requested_options
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.containers.start import new_cgroup_path
from jaula.engine.model.container import Container
from jaula.engine.model.container_store import check_name, new_id, random_name, short
from jaula.engine.model.services import Services
from jaula.engine.networks import endpoints, links, port_bindings
from jaula.engine.networks.endpoints import DEFAULT
from jaula.engine.oci_spec import host as oci_spec_host
from jaula.engine.oci_spec import resources, security, spare_init, spec
from jaula.engine.oci_spec.spec import arguments, merge_environment, working_directory
from jaula.engine.threads import in_request_thread, in_thread
from jaula.engine.userns.id_ranges import with_keep_id_user
from jaula.engine.volumes import mount_spec
from jaula.engine.volumes.create import VolumeMounter
from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable, resource_error
from jaula.images import platform as platforms
from jaula.images.reference import index_name
from jaula.network import etc_files
from jaula.request_context import check_client
from jaula.spec import egress, listen, signals, units
from jaula.spec.api import ContainerCreate, HostConfig, LogConfig
from jaula.spec.api_params import ContainerCreated
from jaula.spec.decode import Empty
from jaula.spec.image import ImageConfig, Platform
from jaula.state.records import (
    ContainerRecord,
    MigrationPhase,
    MigrationRecord,
    ResolvedRequest,
    UserFacts,
    is_external,
    log_of,
)

if TYPE_CHECKING:
    from jaula.images.store.catalog import Image
    from jaula.spec.pod import PodContainerRequest
    from jaula.storage.drivers.driver import SnapshotDriver

NAMESPACE_MODES = ("network_mode", "pid_mode", "ipc_mode", "uts_mode", "userns_mode")
"""Fields of a host configuration that may name a container, as container:NAME."""

_HOSTNAME_LIMIT = 63  # sethostname(2) allows 64; Docker's limit is RFC 1123's


def no_reservation(record: ContainerRecord) -> None:
    """Count a record for no owner."""


class Bounds(msgspec.Struct, frozen=True):
    """The bounds of an authorized container, which its record keeps.

    ``mount_prefixes`` are the host directories below which its mounts follow no symbolic link.
    ``outside_log`` says that the name of its log server may not resolve to the host.
    ``engine_socket`` is the policy's entry for its engine socket. ``storage_size`` are the bytes
    that a container without a limit of its own may write, where the storage driver can limit it; 0
    for any. ``reserve`` counts the record for its owner before anything is created, and raises
    ``NotAuthorized`` if that is too much.
    """

    mount_prefixes: tuple[str, ...] = ()
    outside_log: bool = False
    engine_socket: str = ""
    storage_size: int = 0
    reserve: Callable[[ContainerRecord], None] = no_reservation


Authorize = Callable[[ContainerCreate, ResolvedRequest], Bounds]
"""Raises for a request that the policy does not allow. Returns the bounds of the container."""


def allow_all(body: ContainerCreate, resolved: ResolvedRequest) -> Bounds:
    """Allow every request, without bounds: the engine itself is the client."""
    return Bounds()


async def create(
    services: Services,
    body: ContainerCreate,
    name: str | None,
    platform: str | None,
    *,
    owner: tuple[str, int] = ("0", 0),
    authorize: Authorize = allow_all,
    log: LogConfig | None = None,
    pod: PodContainerRequest | None = None,
    user_of: Callable[[ContainerRecord], UserFacts] | None = None,
    debug_copy: bool = False,
    transaction: str = "",
    incoming: str = "",
) -> ContainerCreated:
    """Create a container that is ready to start.

    The request is resolved once. ``authorize`` is called with the result before anything is
    created, and before an absent image, container or secret is reported: a client that may not have
    the container learns nothing of them, and is not told to pull the image. Nothing is awaited from
    there on until all names are ids. ``owner`` is the client, with its group. ``log`` is the log of
    a container of a pod, in place of the request's, and ``pod`` is its request. ``user_of`` looks
    its user up. ``debug_copy`` marks the container of a debug session. ``transaction`` is what the
    created volumes belong to until its end, '' for the id of the container. ``incoming`` says from
    where the caller gets files for it, '' for none. Until the caller ends that in the record it
    does not start, and the next engine removes it.

    :raises NotFound: when there is no such image.
    :raises Conflict: when the name is in use.
    :raises ClientGone: when the client of the request left meanwhile.
    :raises InvalidRequest: when the request is not valid for another reason.
    :raises Unavailable: when the container's directory cannot be created.
    """
    _check_network_mode(body)
    body = _without_zeros(body)
    await presets.read_document(body.host_config)
    body = presets.apply(body, services.config.default_profile, services.host.landlock)
    body = with_keep_id_user(body, owner, rootless=services.host.rootless)
    if not body.image:
        raise InvalidRequest("config cannot be empty in order to create a container")
    requested = platforms.parse_platform(platform)
    image = _find_image(services, body.image, requested)
    config = ImageConfig() if isinstance(image, NotFound) else image.config
    merged = merge_image_config(body, config)
    merged = msgspec.structs.replace(merged, host_config=_with_ids(services, merged.host_config))
    resolved = resolve(
        merged,
        lambda ref: _container_id(services, ref),
        services.engine_sockets.is_engine_socket,
    )
    if log is not None:
        resolved = msgspec.structs.replace(resolved, log=log)
    if pod is not None:
        requests = mount_spec.with_pod_mounts(resolved.mounts, pod.mounts)
        resolved = msgspec.structs.replace(resolved, mounts=requests)
        limits = resources.with_pod_limits(resolved.pod_resources, pod, services.host)
        resolved = msgspec.structs.replace(resolved, pod_resources=limits)
    bounds = authorize(merged, resolved)
    _check_containers(services, resolved)
    if merged.host_config.secrets or merged.host_config.configs:
        feature.require("secrets", "a container with secrets or configs")
    merged = services.hooks.request_completed(services, merged, resolved)
    if joined := resolved.namespaces.net.container:
        domain = services.container_store.find(joined).record.body.domainname
        merged = msgspec.structs.replace(merged, domainname=domain)
    if name:
        name = check_name(name)
        services.container_store.check_free(name)
    if isinstance(image, NotFound):
        raise image
    if pod is not None and index_name(pod.user_specified_image) not in (
        *image.names,
        *image.digests,
    ):
        pod = msgspec.structs.replace(
            pod, user_specified_image=""
        )  # its rule would be another image's
    services.image_policy.check_run(image, (pod.user_specified_image if pod else "") or body.image)
    networks = _networks(services, merged)
    network_ids = {name: services.network_store.id_of(name) for name in networks}
    if spare_init.has_default_shape(merged.host_config, resolved, networks, DEFAULT):
        container_id = services.sandbox_pool.reserve_id()
    else:
        container_id = new_id()
    warnings = (*_platform_warnings(image, requested), *check(services, merged, resolved))
    unique_name = name or random_name(services.container_store.names)
    services.container_store.reserve(unique_name, container_id)
    lease = services.images.lease()
    mounter = VolumeMounter(services, transaction)
    directory = services.config.paths.container(container_id)
    try:
        image = services.images.pin_image(lease, image)  # until the record keeps its layers
        layers = services.images.mountable(image)
        if failure := services.images.layers.failure(layers):
            raise NotFound(  # the client pulls the image then, with its credentials
                f"No such image: {body.image[:300]} is not complete: {failure}",
                hint="pull the image again",
            )
        if not all(map(services.layers.has, layers)):  # requested by its id, which names no TOC
            await in_request_thread(partial(services.images.wait_whole, image))
            layers = services.images.mountable(image)
        record = ContainerRecord(
            id=container_id,
            name=unique_name,
            created=time.time_ns(),
            body=merged,
            image=image.id,
            layers=layers,
            args=arguments(merged),
            hostname=_hostname(services, merged, resolved, container_id),
            networks=networks,
            network_ids=network_ids,
            storage_driver=services.snapshots.name,
            warnings=warnings,
            owner=owner[0],
            owner_gid=owner[1],
            beneath=bounds.mount_prefixes,
            outside_log=bounds.outside_log,
            pod=pod,
            engine_socket=bounds.engine_socket,
            level=selinux.take_level(services, container_id, resolved),
            cgroup=new_cgroup_path(services.config, merged.host_config.cgroup_parent, container_id),
            resolved_request=resolved,
            debug_copy=debug_copy,
        )
        if incoming:
            phase = MigrationPhase.INCOMING
            migration = MigrationRecord(container_id, phase, incoming, transaction=container_id)
            record = msgspec.structs.replace(record, migration=migration)
        bounds.reserve(record)
        if user_of is not None:
            record = msgspec.structs.replace(record, user=user_of(record))
        os.makedirs(directory, mode=0o710, exist_ok=True)
        size = size_limit(merged.host_config.storage_opt)
        if size is None:
            size = default_size(bounds, services.snapshots)
        if services.snapshots.instant:
            services.snapshots.create(container_id, record.layers, size=size)
        else:
            await in_thread(services.snapshots.create, container_id, record.layers, size=size)
        check_client()
        for request in resolved.mounts:
            selinux.check_mount(services, request.mount)
        if resolved.mounts or resolved.volumes_from:
            mounts = await mounter.create_sources(record, lease)
            record = msgspec.structs.replace(record, mounts=mounts)
        if services.config.durable and not record.is_transient:
            await in_thread(services.snapshots.sync, container_id)
        check_client()
        container = Container(record)
        services.container_store.add(container)
    except BaseException as error:
        services.container_store.release(unique_name, container_id)
        services.container_store.free_level(container_id)
        await services.sandbox_pool.take_back(container_id)
        await asyncio.to_thread(remove_files, services, container_id)
        await mounter.undo()
        if isinstance(error, OSError):
            what = f"cannot create the container's directory {directory}"
            raise resource_error(error, what) or Unavailable(
                f"{what}: {error.strerror}", hint="check permissions of the root directory"
            ) from error
        raise
    finally:
        mounter.close()
        lease.close()
    services.events.emit("container", "create", container_id, record.event_attributes)
    return ContainerCreated(container_id, warnings)


def _ineffective(body: ContainerCreate) -> list[str]:
    """Return the warnings about members that have no effect, in Docker's words."""
    host, warnings = body.host_config, []
    if host.volume_driver and any(mount.type == "volume" for mount in host.mounts):
        warnings.append(
            f"WARNING: the container-wide volume-driver configuration is ignored for volumes"
            f' specified via "mount". Use "--mount type=volume,volume-driver={host.volume_driver}"'
            " instead"
        )
    return warnings


def check(services: Services, body: ContainerCreate, resolved: ResolvedRequest) -> tuple[str, ...]:
    """Check that a request can be started and return its warnings.

    :raises InvalidRequest: when it cannot.
    """
    host, modes = body.host_config, resolved.namespaces
    arguments(body)
    working_directory(body.working_dir)
    warnings = [
        *resources.check(host, services.host, resolved.pod_resources),
        *security.check(host, resolved, oci_spec_host.refresh(services.host)),
    ]
    if host.profile == presets.STRICT and not services.host.landlock:
        warnings.append("This kernel has no Landlock, which is a part of the profile strict")
    warnings += presets.warnings(host)
    _check_lists(host, resolved)
    warnings += _unlisted_ports(host, resolved)
    services.hooks.request_resolved(services, body, resolved)
    spec.check(body, resolved)
    restart_policy.check(host.restart_policy, auto_remove=host.auto_remove)
    if resolved.ports and modes.net.host:
        warnings.append("Published ports are discarded when using host network mode")
    if modes.net.host and not modes.user.host and not services.host.rootless:
        start = oci_spec_host.unprivileged_port_start()
        warnings += port_bindings.host_network_warnings(body.exposed_ports, start)
    warnings += _ineffective(body)
    health.check(body.healthcheck)
    warnings += health.check_on_failure(body)
    if not modes.uts.private and body.hostname:
        raise InvalidRequest("conflicting options: hostname and the UTS mode")
    for request in resolved.mounts:
        mount_spec.check_propagation(
            request.mount, own_userns=not modes.user.host, external=is_external(host.runtime)
        )
    if "" in host.annotations:
        raise InvalidRequest(
            "invalid Annotations: the empty string is not permitted as an annotation key"
        )
    links.check(services, resolved)
    if host.isolation not in ("", "default"):
        raise InvalidRequest(
            f"invalid isolation {host.isolation!r}", hint="the other values are for Windows"
        )
    size_limit(host.storage_opt)
    if parent := host.cgroup_parent:
        cgroup_paths.parent_path(parent, systemd=services.config.systemd_cgroups)
    if body.domainname and not is_host_name(body.domainname):
        raise InvalidRequest(f"invalid domain name: {body.domainname!r}")
    resources.check_oom_score(host.oom_score_adj)
    if host.shm_size < 0:
        raise InvalidRequest("SHM size can not be less than 0")
    if body.stop_signal:
        signals.parse(body.stop_signal)
    requested_options(services.config, host.log_config)  # not a pod's, which only the engine sets
    log_options(services.config, log_of(body, resolved))
    for text in host.device_cgroup_rules:
        spec.cgroup_rule(text)
    for mapping in host.devices:
        spec.devices(mapping)
    for entry in host.extra_hosts:
        etc_files.parse_extra_host(entry)
    etc_files.resolv_conf("", dns=host.dns, search=host.dns_search, options=host.dns_options)
    return tuple(warnings)


def _check_lists(host: HostConfig, resolved: ResolvedRequest) -> None:
    """Check the egress list and the listen list.

    :raises InvalidRequest: when an item is malformed, or the container shares its network.
    """
    egress.parse(host.egress or ())
    listen.parse(host.listen or ())
    subject = (
        "an egress list" if host.egress is not None
        else "a listen list" if host.listen is not None else ""
    )  # fmt: skip
    net = resolved.namespaces.net
    if subject and (net.host or net.container):
        other = "the host" if net.host else "another container"
        raise InvalidRequest(
            f"conflicting options: {subject} and the network of {other}",
            hint="the list restricts a network of the container's own",
        )


def _unlisted_ports(host: HostConfig, resolved: ResolvedRequest) -> Iterator[str]:
    """Yield a warning for published ports that the listen list lacks."""
    if host.listen is None:
        return
    ports = listen.parse(host.listen)
    allowed = listen.allowed(ports)
    refused = {
        f"{port.container_port}/{port.protocol}": f"{port.protocol}:{port.container_port}"
        for port in resolved.ports
        if (port.protocol, port.container_port) not in allowed
    }
    if refused:
        yield (
            f"published ports that the listen list lacks are refused: {', '.join(refused)};"
            f" --listen {','.join((*map(str, ports), *refused.values()))} allows them"
        )


def _without_zeros(body: ContainerCreate) -> ContainerCreate:
    """Return the request without ``PidsLimit: 0``, which Docker's client sends for no option."""
    host = body.host_config
    if host.pids_limit != 0:
        return body
    return msgspec.structs.replace(body, host_config=msgspec.structs.replace(host, pids_limit=None))


def _check_network_mode(body: ContainerCreate) -> None:
    """Check what a request may not have with the network of another container or of the host.

    Exposed ports of the image are not conflicts. Source: moby ``runconfig.validateNetMode``.

    :raises InvalidRequest: when options exclude each other.
    """
    host = body.host_config
    kind = host.network_mode.partition(":")[0]
    if kind not in ("container", "host"):
        return
    if host.links:
        what = "container type network" if kind == "container" else "host type networking"
        raise InvalidRequest(
            f"conflicting options: {what} can't be used with links. This would result in undefined"
            " behavior"
        )
    if kind == "host":
        return
    for present, what in (
        (body.hostname, "hostname and the network mode"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (body.exposed_ports, "port exposing and the container type network mode"),
    ):
        if present:
            raise InvalidRequest(f"conflicting options: {what}")


def _with_ids(services: Services, host: HostConfig) -> HostConfig:
    """Return the request with container ids in its modes and the name of the runtime.

    Both are fixed when the container is created, whatever has the names later.
    """
    runtime = services.runtime_table.choose(host.runtime)
    return msgspec.structs.replace(with_container_ids(services, host), runtime=runtime)


def with_container_ids(services: Services, host: HostConfig) -> HostConfig:
    """Return the request with the ids of containers in the modes that name one.

    The name of an absent container stays.
    """
    changed = {}
    for field in NAMESPACE_MODES:
        kind, colon, ref = getattr(host, field).partition(":")
        if kind == "container" and colon and ref:
            changed[field] = f"container:{_container_id(services, ref)}"
    return msgspec.structs.replace(host, **changed)


def with_network_id(services: Services, host: HostConfig) -> HostConfig:
    """Return the request with the id of the user's network that its network mode names.

    Another client may remove it and create another one with its name. The name of an absent network
    stays.
    """
    try:
        name = services.network_store.find(host.network_mode)
    except (NotFound, InvalidRequest):
        return host  # a mode, or the use case reports it with its own text
    network = services.network_store.get(name)
    return host if network is None else msgspec.structs.replace(host, network_mode=network.id)


def _container_id(services: Services, ref: str) -> str:
    try:
        return services.container_store.find(ref).id
    except NotFound:
        return ref


def _check_containers(services: Services, resolved: ResolvedRequest) -> None:
    """Check that the containers of the request exist.

    :raises InvalidRequest: when one does not. 404 would make the docker command look for the image
        at a registry.
    """
    sources = (source.container for source in resolved.volumes_from)
    for ref in (*resolved.namespaces.containers().values(), *sources):
        try:
            services.container_store.find(ref)
        except NotFound as error:
            raise InvalidRequest(error.message) from None


def _platform_warnings(image: Image, requested: Platform | None) -> list[str]:
    """Return Docker's warning about an image for another platform that no request named."""
    if (
        requested is not None
        or not image.platform.architecture
        or platforms.runs_here(image.platform)
    ):
        return []
    actual, host = map(platforms.format_platform, (image.platform, platforms.host()))
    warning = (
        f"The requested image's platform ({actual}) does not match the detected host platform "
        f"({host}) and no specific platform was requested"
    )
    return [warning]


def _find_image(services: Services, ref: str, platform: Platform | None) -> Image | NotFound:
    try:
        return services.images.resolve(ref, platform)
    except NotFound as error:
        return error


def _networks(services: Services, body: ContainerCreate) -> endpoints.NetworkEndpoints:
    """Return the networks that the container is to be connected to."""
    try:
        networks = endpoints.select_networks(body, services.network_store.find)
    except NotFound as error:
        # 404 would make the docker command look for the image at a registry.
        raise InvalidRequest(
            error.message,
            hint="create it with network create, or use host, none or container:NAME",
        ) from None
    for name, settings in networks.items():
        endpoints.check(name, services.network_store.get(name), settings, new=True)
    return networks


def _hostname(
    services: Services, body: ContainerCreate, resolved: ResolvedRequest, container_id: str
) -> str:
    name, modes = body.hostname, resolved.namespaces
    if joined := modes.uts.container or modes.net.container:
        return services.container_store.find(joined).record.hostname
    if not name:
        if modes.net.host or modes.uts.host:
            return services.host.hostname
        return short(container_id)
    if not is_host_name(name):
        raise InvalidRequest(f"invalid hostname format: {name}")
    return name


def is_host_name(name: str, limit: int = _HOSTNAME_LIMIT) -> bool:
    """Return whether a name has only letters, digits and ``-._``; ``hosts`` gets it as a line."""
    plain = name.replace("-", "").replace(".", "").replace("_", "")
    return len(name) <= limit and plain.isascii() and plain.isalnum()


def remove_files(services: Services, container_id: str) -> None:
    """Remove what a create that failed has made of a container's files."""
    try:
        services.snapshots.remove(container_id)
    except (JaulaError, FileNotFoundError):
        pass  # it may not have been created; the first error is the one to report
    shutil.rmtree(services.config.paths.container(container_id), ignore_errors=True)


# -- image configuration and storage options -----------------------------------------------------


def merge_image_config(body: ContainerCreate, image: ImageConfig) -> ContainerCreate:
    """Return the request, completed with the image's configuration (moby ``daemon.merge``).

    A request's entry point drops the image's command. Variables, labels, ports and volumes of both
    are joined.

    :raises InvalidRequest: when a variable has no name.
    """
    entrypoint, cmd = body.entrypoint, body.cmd
    if not cmd and not entrypoint:
        cmd = image.cmd
    if entrypoint is None:
        entrypoint = image.entrypoint or None
    elif entrypoint == ("",):
        entrypoint = None  # "--entrypoint ''" resets the image's
    return msgspec.structs.replace(
        body,
        env=_merge_env(body.env, image.env),
        cmd=cmd,
        entrypoint=entrypoint,
        working_dir=_clean(body.working_dir or image.working_dir),
        user=body.user or image.user,
        labels={**image.labels, **body.labels},
        exposed_ports={**dict.fromkeys(image.exposed_ports, Empty()), **body.exposed_ports},
        volumes={**dict.fromkeys(image.volumes, Empty()), **body.volumes},
        stop_signal=body.stop_signal or image.stop_signal,
        shell=body.shell or image.shell,
        healthcheck=health.merge_image_healthcheck(body.healthcheck, image.healthcheck),
    )


def _clean(path: str) -> str:
    """Return a path as Go's ``filepath.Clean`` does; the empty one stays empty."""
    if not path:
        return ""
    plain = posixpath.normpath(path)
    return "/" + plain.lstrip("/") if path.startswith("/") else plain


def _merge_env(own: tuple[str, ...], image: tuple[str, ...]) -> tuple[str, ...]:
    """Return the request's variables in its order, then the image's that it does not name."""
    merged = merge_environment((), (*image, *own))
    by_name = {entry.partition("=")[0]: entry for entry in merged}
    order = dict.fromkeys(entry.partition("=")[0] for entry in (*own, *image))
    return tuple(by_name[name] for name in order if name in by_name)


_MIN_SIZE = 1 << 20  # bytes; with less a container cannot be started on some drivers


def default_size(bounds: Bounds, snapshots: SnapshotDriver) -> int | None:
    """Return the bytes that a container without ``--storage-opt size=`` may write, None for any."""
    return bounds.storage_size if bounds.storage_size and snapshots.has_quotas else None


def size_limit(options: Mapping[str, str]) -> int | None:
    """Return the bytes that ``--storage-opt size=`` lets a container write, None for no limit.

    ``size`` is Docker's only option here; its units are powers of 1024, as Docker's.

    :raises InvalidRequest: when an option is unknown or a size is not valid.
    """
    limit: int | None = None
    for name, text in options.items():
        if name.lower() != "size":
            raise InvalidRequest(f"unknown option {name[:80]!r} in --storage-opt", hint="size=10g")
        try:
            limit = units.size(text)
        except ValueError:
            limit = 0
        if limit < _MIN_SIZE:
            raise InvalidRequest(
                f"invalid size in --storage-opt: {text[:80]!r}", hint="size=10g; the minimum is 1m"
            )
    return limit
