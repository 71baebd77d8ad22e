"""Making what mounts need: volumes, host directories, the image's content in a new volume."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.model.container_store import new_id
from jaula.errors import InvalidRequest, NotFound
from jaula.kernel.mounts import MOUNT_ATTR
from jaula.runtime.create import mount_options
from jaula.runtime.create.mount_options import MountOptions
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
            parse_driver_options(request.driver_opts)
            volumes.create(name, labels, request.driver_opts)
            self._made.append(name)
            self._parts.events.emit("volume", "create", name, {"driver": "local"})
        if not request.mount.no_copy and not volumes.get(name).options and volumes.is_empty(name):
            await asyncio.to_thread(self._copy_up, record, name, request.mount.destination)
        shown = parse_driver_options(volumes.get(name).options)
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


DRIVER_OPTIONS = ("type", "device", "o", "size")
_MEMORY = ("tmpfs", "ramfs")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph")


class VolumeSource(msgspec.Struct, frozen=True):
    """A file system, or a directory of the host where ``options.bind``."""

    type: str
    device: str
    options: MountOptions

    @property
    def writable(self) -> bool:
        return not self.options.set & MOUNT_ATTR.RDONLY

    @property
    def in_memory(self) -> bool:
        """Whether its content is gone when it is mounted nowhere any more."""
        return self.type in _MEMORY and not self.options.bind


def parse_driver_options(options: Mapping[str, str]) -> VolumeSource | None:
    """The source of a volume with these options; None for a plain directory.

    :raises InvalidRequest: an option that there is not, or that is missing.
    """
    for name in sorted(options):
        if name not in DRIVER_OPTIONS:
            raise InvalidRequest(
                f'invalid option: "{name}"',
                hint=f"the local driver has {', '.join(DRIVER_OPTIONS)}",
            )
    if "size" in options:
        raise InvalidRequest(
            "quota size requested but no quota support", hint="o=size=10m with type=tmpfs"
        )
    if not options:
        return None
    for name in ("device", "type"):
        if not options.get(name):
            raise InvalidRequest(f'missing required option: "{name}"')
    words = tuple(word for word in options.get("o", "").split(",") if word)
    if any("\0" in text for text in options.values()):
        raise InvalidRequest("a volume's option holds a NUL byte")
    source = VolumeSource(options["type"], options["device"], mount_options.parse_options(words))
    _check_driver_options(source)
    return source


def _check_driver_options(source: VolumeSource) -> None:
    options = source.options
    if options.remount or options.idmap or options.copy_up or options.propagation:
        raise InvalidRequest(
            "a volume is mounted once: remount, idmap and propagation have no place"
        )
    if options.bind:
        if options.data:
            raise InvalidRequest(f"a bind has no option {options.data[0][0]!r}")
        if not source.device.startswith("/"):
            raise InvalidRequest(f"the device of a bind is an absolute path, not {source.device!r}")
    elif source.type in ("none", "bind"):
        raise InvalidRequest(f"type {source.type} is for binds", hint="o=bind")


def mount_data(source: VolumeSource, address: str = "") -> tuple[tuple[str, str | None], ...]:
    """The options of the file system; ``address`` is the server's in figures."""
    found = [(key, value) for key, value in source.options.data if key != "addr" or not address]
    return (*found, *((("addr", address),) if address else ()))


def server_name(source: VolumeSource) -> str:
    """The host name that has to be looked up for a file system of the network; empty for none."""
    if source.type not in _NETWORK:
        return ""
    for key, value in source.options.data:
        if key == "addr" and value:
            return value
    return source.device.rpartition(":/")[0].strip("[]") if source.type.startswith("nfs") else ""
