"""The files of a container in a checkpoint: the changes of its root, and its volumes.

They are written while all processes are stopped, so files and memory are of one moment.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import shm
from jaula.errors import InvalidRequest, JaulaError, resource_error
from jaula.kernel.sync import sync_file_systems
from jaula.storage.checkpoint_files import sparse_sink, write_shm, write_volume
from jaula.storage.checkpoints import (
    FILES,
    ROOT_TAR,
    SHM_TAR,
    CheckpointFiles,
    CheckpointVolume,
    ContainerDescription,
    add_file,
    describe_file,
)
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.state.records import ContainerRecord
    from jaula.storage.checkpoints import Manifest


def describe(record: ContainerRecord) -> ContainerDescription:
    """Return what is needed to create a container again. Pure."""
    return ContainerDescription(
        name=record.name,
        body=record.body,
        image_id=record.image,
        layers=record.layers,
        hostname=record.hostname,
        networks=record.networks,
        sandbox=record.pod.sandbox if record.pod is not None else "",
    )


def write(services: Services, record: ContainerRecord, images: Path) -> CheckpointFiles:
    """Write the container's files beside an image directory; call from a thread that may block.

    The result has no digests (:func:`with_digests`).

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
        with (
            open_directory(volume.path) as directory,
            add_file(images, name) as file,
            sparse_sink(file) as sink,
        ):
            write_volume(directory, sink)
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


def with_digests(held: CheckpointFiles, images: Path) -> CheckpointFiles:
    """Return the files with sizes and digests. They are on the disk afterwards."""
    names = sorted(os.listdir(images.parent / FILES))
    return msgspec.structs.replace(held, files=tuple(describe_file(images, name) for name in names))


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
    directory = services.checkpoints.files(manifest)
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


def replace(services: Services, record: ContainerRecord) -> None:
    """Put staged files in place; an interrupted call is completed by another one."""
    for name in _volumes(services, record):
        services.volumes.replace(name)
    services.snapshots.replace(record.id)


def discard(services: Services, record: ContainerRecord) -> None:
    """Remove staged files."""
    for name in _volumes(services, record):
        services.volumes.discard(name)
    services.snapshots.discard(record.id)


def _volumes(services: Services, record: ContainerRecord) -> list[str]:
    names = dict.fromkeys(mount.name for mount in record.mounts if mount.type == "volume")
    return [name for name in names if services.volumes.exists(name)]
