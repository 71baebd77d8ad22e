"""Making what mounts need: volumes, host directories, the image's content in a new volume."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.model.names import new_id
from jaula.engine.volumes import local_driver
from jaula.errors import InvalidRequest, NotFound
from jaula.state.records import ContainerRecord, MountRecord, MountRequest, VolumesFrom

if TYPE_CHECKING:
    from jaula.engine.model.services import Services


class VolumeMounter:
    """The mounts of one container that is being made; remembers what to undo."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._made: list[str] = []

    async def create_sources(self, record: ContainerRecord) -> tuple[MountRecord, ...]:
        """Make what is missing and return the records, other containers' volumes included.

        :raises InvalidRequest: a source that is not there and is not to be made.
        """
        places: dict[str, MountRecord] = {}
        for source in record.resolved.volumes_from:
            for mount in self._from(source):
                places[mount.destination] = mount
        for request in record.resolved.mounts:
            mount = request.mount
            if mount.type == "bind":
                _check_source(mount, make=request.make_source and not record.beneath)
            elif mount.type == "volume":
                if mount.anonymous and mount.destination in places:
                    continue  # --volumes-from wins over the image's VOLUME
                mount = await self._volume(record, request)
            places[mount.destination] = mount
        return tuple(places.values())

    def undo(self) -> None:
        """Remove the volumes that were made for a container that will not be."""
        for name in self._made:
            self._parts.volumes.remove(name)
        self._made.clear()

    def _from(self, source: VolumesFrom) -> list[MountRecord]:
        try:
            mounts = self._parts.registry.find(source.container).record.mounts
        except NotFound as error:  # no 404: the docker command takes that for a missing image
            raise InvalidRequest(error.message) from None
        return [
            msgspec.structs.replace(
                m, read_only=source.mode == "ro" or m.read_only, anonymous=False
            )
            for m in mounts
            if m.type != "tmpfs"
        ]

    async def _volume(self, record: ContainerRecord, request: MountRequest) -> MountRecord:
        volumes = self._parts.volumes
        name = request.mount.name or new_id()
        if not volumes.exists(name):
            labels = dict(request.labels)
            if request.mount.anonymous:
                labels["com.docker.volume.anonymous"] = ""
            local_driver.parse_driver_options(request.driver_opts)
            volumes.create(name, labels, request.driver_opts)
            self._made.append(name)
            self._parts.events.emit("volume", "create", name, {"driver": "local"})
        if not request.mount.no_copy and not volumes.get(name).options and volumes.is_empty(name):
            await asyncio.to_thread(self._copy_up, record, name, request.mount.destination)
        shown = local_driver.parse_driver_options(volumes.get(name).options)
        read_only = request.mount.read_only or not (shown is None or shown.writable)
        source = str(volumes.path(name))
        if request.mount.subpath:
            source = f"{source}/{request.mount.subpath}"
        return msgspec.structs.replace(request.mount, name=name, source=source, read_only=read_only)

    def _copy_up(self, record: ContainerRecord, name: str, destination: str) -> None:
        from jaula.storage.drivers.driver import open_root

        with open_root(self._parts.snapshots.view(record.layers)) as root:
            self._parts.volumes.populate(name, root, destination)


def _check_source(mount: MountRecord, *, make: bool) -> None:
    if os.path.lexists(mount.source):
        return
    if not make:
        raise InvalidRequest(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        )
    try:
        os.makedirs(mount.source, mode=0o755, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(
            f"cannot make the mount's source {mount.source}: {error.strerror}"
        ) from error
