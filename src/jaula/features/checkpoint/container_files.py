"""The files of a container in a checkpoint: the changes of its root, and its volumes.

They are written while all processes are stopped, so files and memory are of one moment.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import shm
from jaula.engine.threads import in_thread, shielded
from jaula.errors import InvalidRequest, JaulaError, resource_error
from jaula.features.checkpoint.checkpoint_store import (
    FILES,
    ROOT_TAR,
    SHM_TAR,
    CheckpointFiles,
    CheckpointVolume,
    ContainerDescription,
    add_file,
    checkpoint_store,
    copies,
    describe_file,
)
from jaula.kernel.syncfs import sync_file_systems
from jaula.spec.image_documents import diff_id_of
from jaula.storage import free_space
from jaula.storage.checkpoint_files import sparse_sink, write_shm, write_volume
from jaula.storage.tree_copy import TreeCopy
from jaula.storage.trees import open_directory, remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.features.checkpoint.checkpoint_store import Manifest
    from jaula.state.container_records import ContainerRecord


def describe(record: ContainerRecord) -> ContainerDescription:
    """Return what is needed to create a container again. Pure."""
    return ContainerDescription(
        name=record.name,
        body=record.body,
        image_id=record.image,
        layers=tuple(map(diff_id_of, record.layers)),
        hostname=record.hostname,
        networks=record.networks,
        sandbox=record.pod.sandbox if record.pod is not None else "",
    )


Copies = dict[str, TreeCopy]
"""Copies of volumes by name."""


def begin_copies(services: Services, record: ContainerRecord, images: Path) -> Copies:
    """Copy the volumes of a running container; :func:`write` copies the difference.

    So the container stands still for the difference only. A volume that does not fit twice on the
    disk is not copied. Call from a thread that may block.

    :raises Unavailable: when the disk is full.
    """
    copied: Copies = {}
    directory = copies(images)
    try:
        directory.mkdir(mode=0o700)
        with open_directory(directory) as descriptor:
            free = free_space.check(descriptor, 0)
        for mount in record.mounts:
            if mount.type != "volume" or mount.name in copied:
                continue
            volume = services.volumes.get(mount.name)
            if volume.options:
                continue
            free -= 2 * services.volumes.usage(volume.name)
            if free < 0:
                break
            copy = TreeCopy(volume.path, directory / str(len(copied)))
            copy.begin()
            copied[volume.name] = copy
    except OSError as error:
        what = "cannot write the container's files"
        raise resource_error(error, what) or JaulaError(f"{what}: {error}") from error
    return copied


def write(
    services: Services, record: ContainerRecord, images: Path, copied: Copies
) -> CheckpointFiles:
    """Write the container's files beside an image directory; call from a thread that may block.

    Volumes with a copy are written by :func:`complete`, which has the digests too.

    :raises Unavailable: when the disk is full.
    """
    with add_file(images, ROOT_TAR) as file, sparse_sink(file) as sink:
        changed = services.snapshots.write_layer(record.id, dict, sink, exact=True)
    volumes: dict[str, CheckpointVolume] = {}
    excluded = []
    for mount in record.mounts:
        if mount.type != "volume" or services.volumes.get(mount.name).options:
            if mount.type in ("bind", "volume"):
                excluded.append(mount.destination)
            continue
        if (known := volumes.get(mount.name)) is not None:
            destinations = (*known.destinations, mount.destination)
            volumes[mount.name] = msgspec.structs.replace(known, destinations=destinations)
            continue
        volume = services.volumes.get(mount.name)
        name = f"volume-{len(volumes)}.tar"
        if mount.name in copied:
            _finish_copy(copied[mount.name])
        else:
            _write_volume(volume.path, images, name)
        volumes[mount.name] = CheckpointVolume(
            mount.name, name, (mount.destination,), mount.anonymous, volume.labels
        )
    if record.resolved.namespaces.ipc.container and (path := shm.shared(services, record)):
        with (
            open_directory(path) as directory,
            add_file(images, SHM_TAR) as file,
            sparse_sink(file) as sink,
        ):
            write_shm(directory, sink)
    return CheckpointFiles(
        changed=changed,
        volumes=tuple(volumes.values()),
        excluded=tuple(excluded),
    )


def _finish_copy(copy: TreeCopy) -> None:
    try:
        copy.finish()
    except OSError as error:
        what = "cannot copy the container's volumes"
        raise resource_error(error, what) or JaulaError(f"{what}: {error}") from error


def _write_volume(path: str | Path, images: Path, name: str) -> None:
    with (
        open_directory(path) as directory,
        add_file(images, name) as file,
        sparse_sink(file) as sink,
    ):
        write_volume(directory, sink)


def complete(held: CheckpointFiles, images: Path, copied: Copies) -> CheckpointFiles:
    """Write the archives of copied volumes, remove the copies, and compute the digests.

    The files are on the disk afterwards. The container may run.
    """
    for volume in held.volumes:
        if volume.name in copied:
            _write_volume(copied[volume.name].target, images, volume.file)
    discard_copies(images)
    names = sorted(os.listdir(images.parent / FILES))
    return msgspec.structs.replace(held, files=tuple(describe_file(images, name) for name in names))


def discard_copies(images: Path) -> None:
    """Remove the copies of volumes, if there are any."""
    if copies(images).exists():
        with open_directory(images.parent) as parent:
            remove_tree(parent, os.fsencode(copies(images).name))


def stage(services: Services, record: ContainerRecord, manifest: Manifest) -> None:
    """Prepare the files of a verified checkpoint for the snapshot and the volumes of a container.

    The volumes are those that it has at the same destinations. Nothing is changed: :func:`replace`
    puts the files in place, :func:`discard` removes them. Call from a thread that may block.

    :raises InvalidRequest: when the checkpoint holds no files, or a volume does not exist.
    :raises Unavailable: when the disk is full.
    """
    held = manifest.held
    if held is None:
        raise InvalidRequest(
            f"checkpoint {manifest.name} holds no files",
            hint="create it with jaula checkpoint create --with-files, or jaula snapshot",
        )
    directory = services.service(checkpoint_store).files(manifest)
    names = {m.destination: m.name for m in record.mounts if m.type == "volume"}
    try:
        for volume in held.volumes:
            name = names.get(volume.destinations[0], "")
            if not services.volumes.exists(name):
                raise InvalidRequest(
                    f"the volume at {volume.destinations[0]} does not exist any more",
                    hint=f"create the volume {name or volume.name}",
                )
            with (directory / volume.file).open("rb") as archive:
                services.volumes.stage(name, archive)
        with (directory / ROOT_TAR).open("rb") as layer:
            services.snapshots.stage(record.id, layer)
        if services.config.durable:
            paths = services.config.paths
            sync_file_systems(paths.container(record.id), paths.volumes)
    except OSError as error:
        discard(services, record)
        what = f"the files of checkpoint {manifest.name} cannot be written"
        raise resource_error(error, what) or JaulaError(f"{what}: {error}") from error
    except BaseException:
        discard(services, record)
        raise


async def stage_and_verify(
    services: Services,
    record: ContainerRecord,
    manifest: Manifest,
    verify: Callable[[], Coroutine[object, object, None]],
) -> None:
    """Call :func:`stage` in a thread, and verify the files of the checkpoint meanwhile.

    :raises JaulaError: when one of both fails; nothing is staged then.
    """
    try:
        results = await asyncio.gather(
            in_thread(stage, services, record, manifest), verify(), return_exceptions=True
        )
        for each in reversed(results):  # damaged files may not be staged, and verify says why
            if isinstance(each, BaseException):
                raise each
    except BaseException:
        await shielded(in_thread(discard, services, record))
        raise


def replace(services: Services, record: ContainerRecord, *, keep: bool = False) -> None:
    """Put staged files in place; an interrupted call is completed by another one.

    With ``keep`` the former files stay beside them, for :func:`put_back`, until :func:`discard`.
    """
    for name in volumes(services, record):
        services.volumes.replace(name, keep=keep)
    services.snapshots.replace(record.id, keep=keep)


def put_back(services: Services, record: ContainerRecord) -> None:
    """Put the former files in place again; an interrupted call is completed by another one."""
    for name in volumes(services, record):
        services.volumes.put_back(name)
    services.snapshots.put_back(record.id)


def discard(services: Services, record: ContainerRecord) -> None:
    """Remove staged and former files."""
    for name in volumes(services, record):
        services.volumes.discard(name)
    services.snapshots.discard(record.id)


def volumes(services: Services, record: ContainerRecord) -> list[str]:
    """Return the names of a container's volumes that exist."""
    names = dict.fromkeys(mount.name for mount in record.mounts if mount.type == "volume")
    return [name for name in names if services.volumes.exists(name)]
