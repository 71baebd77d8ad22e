"""The bundle of a start: its volumes, the OCI spec and files, and the request to the runtime."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from jaula.engine import oci_runtimes
from jaula.engine.containers import engine_socket, selinux_labels, shm
from jaula.engine.containers.container_cgroup import cgroup_path
from jaula.engine.containers.log_config import log_options, log_path, with_identity
from jaula.engine.model.seal import spec_seal
from jaula.engine.networks import container_links, provided_files
from jaula.engine.oci_spec import host_facts, security_opt, start_spec
from jaula.engine.oci_spec.inputs import SpecInputs
from jaula.engine.volumes.image_mount import mount_images
from jaula.runtime import runtime_client
from jaula.runtime.create.user_namespace_maps import host_id
from jaula.runtime.shim_protocol import LogSetup, StartRequest
from jaula.security.allowed_devices import host_devices
from jaula.spec.rootfs import OverlayRoot, RootSource
from jaula.spec.runtime_spec import encode
from jaula.state.container_records import ContainerRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaula.engine.containers.start_resources import StartResources
    from jaula.engine.containers.user_lookup import UserLookup
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.runtime.shim_protocol import ExternalRuntime
    from jaula.security.cdi import ContainerEdits
    from jaula.spec.api_documents import DeviceRequest
    from jaula.state.container_records import MountRecord

OnSpec = Callable[[ContainerRecord, str], None]
"""Logs the seal of a spec that was written for a start."""


async def write(
    services: Services,
    container: Container,
    joined: dict[str, str],
    resources: StartResources,
    users: UserLookup,
    on_spec: OnSpec,
) -> StartRequest:
    """Mount the volumes, write spec and files of a start, and return the request to the runtime.

    ``joined`` are the paths of namespaces of other containers.

    :raises JaulaError: when the container cannot be started as its record says.
    """
    record = container.record
    if services.host.selinux and not record.level:  # older than the host's policy
        container.change(level=selinux_labels.take_level(services, record.id, record.resolved))
        record = container.record
    runtime = await services.runtime_table.command(record.host_config.runtime)
    await services.volume_mounts.use(record)
    maps = resources.id_maps(record)
    mounts, resources.images = await mount_images(services, record, maps)
    request = _start_request(
        services, container, joined, resources, runtime, mounts, users, on_spec
    )
    if services.host.selinux:
        await asyncio.to_thread(selinux_labels.label_files, services, record, request.root)
    return request


def _start_request(
    services: Services,
    container: Container,
    joined: dict[str, str],
    resources: StartResources,
    runtime: ExternalRuntime | None,
    mounts: tuple[MountRecord, ...],
    users: UserLookup,
    on_spec: OnSpec,
) -> StartRequest:
    record = container.record
    body, resolved = record.body, record.resolved
    modes = resolved.namespaces
    if container.transient_env:
        body = msgspec.structs.replace(body, env=(*body.env, *container.transient_env))
    linked = container_links.resolve_links(services, record) if resolved.links else []
    if linked:
        variables = container_links.environment(record, linked)
        body = msgspec.structs.replace(body, env=(*variables, *body.env))
    paths = services.config.paths
    uids, gids = resources.id_maps(record)
    run_dir = paths.container_run(record.id)
    user = record.user or users.of(record)
    requests = body.host_config.device_requests
    inputs = SpecInputs(
        container_id=record.id,
        cgroup_path=cgroup_path(services, record),
        hostname=record.hostname,
        host=host_facts.refresh(services.host),
        user=user,
        mappings=uids,
        gid_mappings=gids,
        joined=joined,
        private_volumes=services.volume_mounts.private(record),
        id_mapped=resources.ids is not None and not services.host.rootless,
        external=runtime is not None,
        files=provided_files.write(
            services, record, resources.endpoints, container_links.hosts_lines(linked)
        ),
        mounts=(
            *engine_socket.bind_mounts(mounts, engine_socket.path(paths, record.id)),
            *services.hooks.mounts_added(services, record, uids, gids),
        ),
        beneath=record.beneath,
        owner=(int(record.owner), record.owner_gid) if record.beneath else None,
        level=record.level,
        shared_shm=shm.shared(services, record),
        devices=host_devices() if resolved.security.privileged and modes.user.host else (),
        edits=_device_edits(services.config.cdi_spec_dirs, requests) if requests else (),
    )
    confinement = security_opt.decide(resolved, inputs.host, external=runtime is not None)
    built = start_spec.build(body, resolved, inputs, confinement)
    root = _root(services, record)
    built = services.hooks.spec_built(services, record, root, built)
    document = encode(start_spec.with_version(built))
    container.run_dir = str(run_dir)
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    runtime_client.remove_shim_files(str(run_dir))
    owner = host_id(uids, user.uid), host_id(gids or uids, 0)
    label = security_opt.selinux_labels(resolved, services.host, record.level).process
    services.engine_sockets.open(record, str(run_dir), owner, label)
    oci_runtimes.ExternalContainer.write(run_dir, runtime)
    bundle = container.bundle or str(paths.container(record.id))
    with open(f"{bundle}/config.json.new", "wb", buffering=0) as file:
        file.write(document)
    os.rename(f"{bundle}/config.json.new", f"{bundle}/config.json")  # inspect and exec read it
    if not record.build:
        on_spec(record, spec_seal(document))
    driver, options = log_options(services.config, record.log)
    return StartRequest(
        container_id=record.id,
        bundle=bundle,
        run_dir=str(run_dir),
        root=root,
        log=LogSetup(
            driver, with_identity(driver, options, record), log_path(services.config, record.id)
        ),
        tty=body.tty,
        stdin_open=body.open_stdin,
        stdin_once=body.stdin_once,
        console=body.host_config.console_size,
        seccomp_cache=str(paths.seccomp_cache),
        runtime=runtime,
        host_mounts=bool(start_spec.host_binds(mounts, inputs.host, inputs.private_volumes))
        or (modes.user.host and any(m.shared for m in record.mounts)),
    )


def _root(services: Services, record: ContainerRecord) -> RootSource:
    """Return the mount of a container's root; a build step's need not survive a power loss."""
    root = services.snapshots.root(record.id)
    if record.build and isinstance(root, OverlayRoot):
        return msgspec.structs.replace(root, volatile=True)
    return root


def _device_edits(
    directories: Sequence[str], requests: Sequence[DeviceRequest]
) -> tuple[ContainerEdits, ...]:
    """Return what the requested devices need, from the files that the host has now."""
    from jaula.security import cdi

    devices = cdi.read(directories)
    return devices.edits(devices.select(requests))
