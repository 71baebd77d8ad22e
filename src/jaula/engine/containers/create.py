"""``POST /containers/create``: create the container of a request, and remove it if that fails.

Everything is checked before anything is created (:mod:`jaula.engine.containers.create_request`).

Source: Docker Engine API 1.45.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import (
    bounds,
    container_record,
    create_request,
    selinux_labels,
    storage_opt,
)
from jaula.engine.model.container import Container
from jaula.engine.model.names_generator import random_name
from jaula.engine.threads import in_request_thread, in_thread
from jaula.engine.volumes.mount_sources import VolumeMounter
from jaula.errors import JaulaError, NotFound, Unavailable, resource_error
from jaula.request_context import check_client
from jaula.spec.api_params import ContainerCreated

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.model.services import Services
    from jaula.spec.api_documents import ContainerCreate, LogConfig
    from jaula.spec.pod import PodContainerRequest
    from jaula.state.container_records import ContainerRecord, UserFacts


async def create(
    services: Services,
    body: ContainerCreate,
    name: str | None,
    platform: str | None,
    *,
    owner: tuple[str, int] = ("0", 0),
    authorize: bounds.Authorize = bounds.allow_all,
    log: LogConfig | None = None,
    pod: PodContainerRequest | None = None,
    user_of: Callable[[ContainerRecord], UserFacts] | None = None,
    debug_copy: bool = False,
    transaction: str = "",
    incoming: str = "",
) -> ContainerCreated:
    """Create a container that is ready to start.

    ``owner`` is the client, with its group. ``log`` is the log of a container of a pod, in place of
    the request's, and ``pod`` is its request. ``user_of`` looks its user up. ``debug_copy`` marks
    the container of a debug session. ``transaction`` is what the created volumes belong to until
    its end, '' for the id of the container. ``incoming`` says from where the caller gets files for
    it, '' for none. Until the caller ends that in the record it does not start, and the next engine
    removes it.

    :raises NotFound: when there is no such image.
    :raises Conflict: when the name is in use.
    :raises ClientGone: when the client of the request left meanwhile.
    :raises InvalidRequest: when the request is not valid for another reason.
    :raises Unavailable: when the container's directory cannot be created.
    """
    request = await create_request.prepare(
        services,
        body,
        name or "",
        platform,
        owner=owner,
        authorize=authorize,
        log=log,
        pod=pod,
    )
    resolved = request.resolved
    container_id = container_record.new_id(services, request)
    unique_name = request.name or random_name(services.container_store.names)
    services.container_store.reserve(unique_name, container_id)
    lease = services.images.lease()
    mounter = VolumeMounter(services, transaction)
    directory = services.config.paths.container(container_id)
    try:
        image = services.images.pin_image(lease, request.image)  # until the record keeps its layers
        layers = services.images.mountable(image)
        if failure := services.images.layers.failure(layers):
            raise NotFound(  # the client pulls the image then, with its credentials
                f"No such image: {body.image[:300]} is not complete: {failure}",
                hint="pull the image again",
            )
        if not all(map(services.layers.has, layers)):  # requested by its id, which names no TOC
            await in_request_thread(partial(services.images.wait_whole, image))
            layers = services.images.mountable(image)
        record = container_record.new_record(
            services, request, container_id, unique_name, image, layers, owner
        )
        if debug_copy or incoming:
            record = container_record.marked(record, debug_copy=debug_copy, incoming=incoming)
        request.bounds.reserve(record)
        if user_of is not None:
            record = msgspec.structs.replace(record, user=user_of(record))
        os.makedirs(directory, mode=0o710, exist_ok=True)
        options = request.body.host_config.storage_opt
        size = storage_opt.snapshot_size(options, request.bounds, services.snapshots)
        if services.snapshots.instant:
            services.snapshots.create(container_id, record.layers, size=size)
        else:
            await in_thread(services.snapshots.create, container_id, record.layers, size=size)
        check_client()
        for each in resolved.mounts:
            selinux_labels.check_mount(services, each.mount)
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
    return ContainerCreated(container_id, request.warnings)


def remove_files(services: Services, container_id: str) -> None:
    """Remove what a create that failed has made of a container's files."""
    try:
        services.snapshots.remove(container_id)
    except (JaulaError, FileNotFoundError):
        pass  # it may not have been created; the first error is the one to report
    shutil.rmtree(services.config.paths.container(container_id), ignore_errors=True)
