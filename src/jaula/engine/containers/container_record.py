"""The record of a new container."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import selinux_labels
from jaula.engine.containers.container_cgroup import new_cgroup_path
from jaula.engine.containers.container_hostname import hostname
from jaula.engine.model import container_store
from jaula.engine.networks.endpoints import DEFAULT
from jaula.engine.oci_spec import spare_init_shape
from jaula.engine.oci_spec.start_spec import arguments
from jaula.state.container_records import ContainerRecord, MigrationPhase, MigrationRecord

if TYPE_CHECKING:
    from jaula.engine.containers.create_request import CreateRequest
    from jaula.engine.model.services import Services
    from jaula.images.store.image_catalog import Image


def new_id(services: Services, request: CreateRequest) -> str:
    """Return the id of a new container: that of a spare init, if one fits the request."""
    host, resolved = request.body.host_config, request.resolved
    if spare_init_shape.has_default_shape(host, resolved, request.networks, DEFAULT):
        return services.sandbox_pool.reserve_id()
    return container_store.new_id()


def new_record(
    services: Services,
    request: CreateRequest,
    container_id: str,
    name: str,
    image: Image,
    layers: tuple[str, ...],
    owner: tuple[str, int],
) -> ContainerRecord:
    """Return the record of a container that has no files yet; ``owner`` is a client, its group.

    :raises InvalidRequest: when the host name is not valid.
    """
    body, resolved = request.body, request.resolved
    return ContainerRecord(
        id=container_id,
        name=name,
        created=time.time_ns(),
        body=body,
        image=image.id,
        layers=layers,
        args=arguments(body),
        hostname=hostname(services, body, resolved, container_id),
        networks=request.networks,
        network_ids={each: services.network_store.id_of(each) for each in request.networks},
        storage_driver=services.snapshots.name,
        warnings=request.warnings,
        owner=owner[0],
        owner_gid=owner[1],
        beneath=request.bounds.mount_prefixes,
        outside_log=request.bounds.outside_log,
        pod=request.pod,
        engine_socket=request.bounds.engine_socket,
        level=selinux_labels.take_level(services, container_id, resolved),
        cgroup=new_cgroup_path(services.config, body.host_config.cgroup_parent, container_id),
        resolved_request=resolved,
    )


def marked(record: ContainerRecord, *, debug_copy: bool, incoming: str) -> ContainerRecord:
    """Return the record of a debug session, or of a container that gets files from elsewhere."""
    migration = None
    if incoming:
        phase = MigrationPhase.INCOMING
        migration = MigrationRecord(record.id, phase, incoming, transaction=record.id)
    return msgspec.structs.replace(record, debug_copy=debug_copy, migration=migration)
