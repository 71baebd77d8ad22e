"""The files of a container in a checkpoint: the changes of its root, and its volumes.

They are written while all processes are stopped, so files and memory are of one moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.storage.checkpoint_files import sparse_sink, write_volume
from jaula.storage.checkpoints import (
    ROOT_TAR,
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


def describe(record: ContainerRecord) -> ContainerDescription:
    """Return what is needed to create a container again. Pure."""
    return ContainerDescription(
        name=record.name,
        body=record.body,
        image_id=record.image,
        layers=record.layers,
        hostname=record.hostname,
        networks=record.networks,
    )


def write(services: Services, record: ContainerRecord, images: Path) -> CheckpointFiles:
    """Write the container's files beside an image directory; call from a thread that may block.

    :raises Unavailable: when the disk is full.
    """
    names = [ROOT_TAR]
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
        names.append(name)
        volumes[mount.name] = CheckpointVolume(
            mount.name, name, (mount.destination,), mount.anonymous, volume.labels
        )
    return CheckpointFiles(
        changed=changed,
        volumes=tuple(volumes.values()),
        excluded=tuple(excluded),
        files=tuple(describe_file(images, name) for name in names),
    )
