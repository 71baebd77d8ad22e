"""Create the sources of mounts: volumes, host directories, the image's content in a new volume.

Options of the ``local`` driver make a volume a mount of something else. Source: moby
``volume/local/local_unix.go``: ``type``, ``device`` and ``o`` are those of mount(8); ``type`` and
``device`` need each other, and ``o`` needs both. ``o=bind`` binds a directory of the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import engine_socket
from jaula.engine.model.container_store import new_id
from jaula.engine.threads import in_thread
from jaula.engine.volumes import image_mount
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.kernel.mounts import MOUNT_ATTR
from jaula.request_context import check_client
from jaula.runtime.create import mount_options
from jaula.runtime.create.mount_options import MountOptions
from jaula.state.container_records import (
    ENGINE_SOCKET,
    IMAGE_MOUNT,
    ContainerRecord,
    MountRecord,
    MountRequest,
    ResolvedRequest,
    VolumesFrom,
)

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.images.store.image_store import Lease


class VolumeMounter:
    """The mounts of one container that is being created; records what to undo.

    Its volumes are not removed by anybody else before :meth:`close`.
    """

    def __init__(self, services: Services, transaction: str = "") -> None:
        """``transaction`` is what the created volumes belong to, by default the container's id."""
        self._services = services
        self._transaction = transaction
        self._is_open = False
        self._created: list[str] = []
        self._pinned: list[tuple[str, str]] = []  # name of a volume, id of the container

    @property
    def created(self) -> tuple[str, ...]:
        """The names of the volumes that were created."""
        return tuple(self._created)

    async def create_sources(
        self, record: ContainerRecord, lease: Lease
    ) -> tuple[MountRecord, ...]:
        """Create missing sources and return the mount records, ``--volumes-from`` included.

        ``lease`` pins the layers of mounted images until the record keeps them.

        :raises ClientGone: when the client of the request left meanwhile.
        :raises InvalidRequest: when a source does not exist and must not be created.
        """
        self._transaction = self._transaction or record.id
        self._services.volume_references.begin(self._transaction)
        self._is_open = True
        mounts: dict[str, MountRecord] = {}
        for source in record.resolved.volumes_from:
            for mount in self._from(source):
                if mount.type == "volume":
                    await self._pin(mount.name, record.id)
                    self._check_exists(mount.name, source.container)
                    await self._services.volume_references.adopt(mount.name, self._transaction)
                mounts[mount.destination] = mount
        for request in record.resolved.mounts:
            check_client()
            mount = request.mount
            if mount.type == "bind":
                _check_source(mount, create=request.make_source and not record.beneath)
            elif mount.type == "volume":
                if mount.anonymous and mount.destination in mounts:
                    continue  # --volumes-from wins over the image's VOLUME
                mount = await self._volume(record, request)
            elif mount.type == IMAGE_MOUNT:
                mount = image_mount.resolve_image(self._services, lease, mount)
                if record.pod is not None:  # the kubelet expects the error before the start
                    await asyncio.to_thread(image_mount.check_directory, self._services, mount)
            elif mount.type == ENGINE_SOCKET:
                path = engine_socket.path(self._services.config.paths, record.id)
                mount = msgspec.structs.replace(mount, source=path)
            mounts[mount.destination] = mount
        return tuple(mounts.values())

    def missing(self, resolved: ResolvedRequest) -> tuple[MountRequest, ...]:
        """Return the mounts for which :meth:`create_sources` creates a volume."""
        inherited = {
            mount.destination for source in resolved.volumes_from for mount in self._from(source)
        }
        return tuple(
            request
            for request in resolved.mounts
            if request.mount.type == "volume"
            and not (request.mount.anonymous and request.mount.destination in inherited)
            and not (request.mount.name and self._services.volumes.exists(request.mount.name))
        )

    async def undo(self) -> None:
        """Remove the volumes that were created for a container whose creation failed.

        A volume that another container needs meanwhile stays.
        """
        self.close()
        for name in self._created:
            with contextlib.suppress(Conflict, NotFound):
                await self._services.volume_references.remove(name, transaction=self._transaction)
                self._services.events.emit("volume", "destroy", name, {"driver": "local"})
        self._created.clear()

    def close(self) -> None:
        """Leave the volumes to the record that names them. A second call does nothing."""
        for pinned in self._pinned:
            self._services.volume_references.unpin(*pinned)
        self._pinned.clear()
        if self._is_open:
            self._is_open = False
            self._services.volume_references.end(self._transaction)

    async def _pin(self, name: str, container_id: str) -> None:
        await self._services.volume_references.pin(name, container_id)
        self._pinned.append((name, container_id))

    def _check_exists(self, name: str, container: str) -> None:
        """Check that a volume of another container was not removed meanwhile.

        :raises Conflict: when it was.
        """
        if not self._services.volumes.exists(name):
            raise Conflict(f"volume {name} of container {container} does not exist any more")

    def _from(self, source: VolumesFrom) -> list[MountRecord]:
        try:
            mounts = self._services.container_store.find(source.container).record.mounts
        except NotFound as error:  # a 404 means a missing image to the docker command
            raise InvalidRequest(error.message) from None
        return [
            msgspec.structs.replace(m, read_only=source.mode == "ro" or m.read_only)
            for m in mounts
            if m.type
            in ("bind", "volume", IMAGE_MOUNT)  # an engine socket is of one container alone
        ]

    async def _volume(self, record: ContainerRecord, request: MountRequest) -> MountRecord:
        volumes = self._services.volumes
        name = request.mount.name or new_id()
        await self._pin(name, record.id)
        if not volumes.exists(name):
            labels = dict(request.labels)
            if request.mount.anonymous:
                labels["com.docker.volume.anonymous"] = ""
            parse_driver_options(request.driver_opts)
            volume, is_new = await in_thread(
                volumes.create,
                name,
                labels,
                request.driver_opts,
                record.owner,
                self._transaction,
            )
            if is_new:
                self._created.append(name)
                self._services.events.emit("volume", "create", name, {"driver": "local"})
            elif volume.owner != record.owner:  # the caller's right to it was not checked
                raise Conflict(
                    f"volume {name} was created by another client at the same time",
                    hint="try again",
                )
        if name not in self._created:
            await self._services.volume_references.adopt(name, self._transaction)
        copies = not request.mount.no_copy and not volumes.get(name).options
        if copies and volumes.accepts_copy(name, request.mount.subpath):
            await in_thread(self._copy_up, record, name, request.mount)
        driver_source = parse_driver_options(volumes.get(name).options)
        read_only = request.mount.read_only or not (driver_source is None or driver_source.writable)
        source = str(volumes.path(name))
        if request.mount.subpath:
            source = f"{source}/{request.mount.subpath}"
        return msgspec.structs.replace(request.mount, name=name, source=source, read_only=read_only)

    def _copy_up(self, record: ContainerRecord, name: str, mount: MountRecord) -> None:
        from jaula.storage.drivers.storage_driver import open_root

        with open_root(self._services.snapshots.view(record.layers)) as root:
            self._services.volumes.populate(
                name, root, mount.destination, mount.subpath, check_client
            )


def _check_source(mount: MountRecord, *, create: bool) -> None:
    if os.path.lexists(mount.source):
        return
    if not create:
        raise InvalidRequest(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}'
        )
    try:
        os.makedirs(mount.source, mode=0o755, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(
            f"cannot create the mount's source {mount.source}: {error.strerror}"
        ) from error


# -- options of the local driver -----------------------------------------------------------------


DRIVER_OPTIONS = ("type", "device", "o", "size")
_MEMORY = ("tmpfs", "ramfs")
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph")
_ON_A_DEVICE = frozenset(
    {
        *("bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "hfsplus"),
        *("iso9660", "jfs", "minix", "msdos", "nilfs2", "ntfs", "ntfs3", "romfs", "squashfs"),
        *("udf", "vfat", "xfs"),
    }
)
"""File systems that need a block device (FS_REQUIRES_DEV): the others ignore the device."""
_SOURCE_OPTIONS = ("addr", "ip", "journal_dev", "mountaddr")
"""Options that name a server or a device without a slash (nfs(5), mount.cifs(8), ext4(5))."""


class VolumeSource(msgspec.Struct, frozen=True):
    """The mount that a volume is: a file system, or a host directory if ``options.bind`` is set."""

    type: str
    device: str
    options: MountOptions

    @property
    def writable(self) -> bool:
        """Return whether the mount is not read-only."""
        return not self.options.set & MOUNT_ATTR.RDONLY

    @property
    def in_memory(self) -> bool:
        """Return whether the content is lost when the file system is mounted nowhere any more."""
        return self.type in _MEMORY and not self.options.bind


def parse_driver_options(options: Mapping[str, str]) -> VolumeSource | None:
    """Return the source of a volume with these options; None for a plain directory.

    :raises InvalidRequest: when an option is unknown or a required one is missing.
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
        raise InvalidRequest("an option of a volume contains a NUL byte")
    source = VolumeSource(options["type"], options["device"], mount_options.parse_options(words))
    _check_driver_options(source)
    return source


def _check_driver_options(source: VolumeSource) -> None:
    options = source.options
    if options.remount or options.idmap or options.copy_up or options.propagation:
        raise InvalidRequest(
            "remount, idmap and propagation are not valid for a volume, which is mounted once"
        )
    if options.bind:
        if options.data:
            raise InvalidRequest(f"a bind mount has no option {options.data[0][0]!r}")
        if not source.device.startswith("/"):
            raise InvalidRequest(
                f"the device of a bind mount must be an absolute path, not {source.device!r}"
            )
    elif source.type in ("none", "bind"):
        raise InvalidRequest(f"type {source.type} is for bind mounts", hint="o=bind")


def sources_of(source: VolumeSource) -> tuple[str, ...]:
    """Return everything outside of the engine that the mount of a volume reaches. Pure.

    The first is the device, and the others are options that name another one. A file system without
    a block device shows what its type and options say, whatever its device is called: ``overlay``
    any directory, ``proc`` and ``debugfs`` the kernel. So it is named with all of them.
    """
    data = source.options.data
    if not (source.options.bind or source.type in (*_ON_A_DEVICE, *_NETWORK)):
        options = ",".join(key if value is None else f"{key}={value}" for key, value in data)
        return (" ".join(word for word in (source.type, source.device, options) if word),)
    others = (
        f"{key}={value}"
        for key, value in data
        if value is not None and (key in _SOURCE_OPTIONS or "/" in value) and key != "subvol"
    )
    return (source.device, *others)


def option_names(options: Mapping[str, str]) -> dict[str, str]:
    """Return driver options without the values in ``o``, which can be a password. Pure."""
    if not options.get("o"):
        return dict(options)
    names = ",".join(word.partition("=")[0] for word in options["o"].split(","))
    return {**options, "o": names}


def mount_data(source: VolumeSource, address: str = "") -> tuple[tuple[str, str | None], ...]:
    """Return the options of the file system; ``address`` is the server's IP address."""
    options = [(key, value) for key, value in source.options.data if key != "addr" or not address]
    return (*options, *((("addr", address),) if address else ()))


def server_name(source: VolumeSource) -> str:
    """Return the host name to resolve for a network file system, '' if there is none."""
    if source.type not in _NETWORK:
        return ""
    for key, value in source.options.data:
        if key == "addr" and value:
            return value
    return source.device.rpartition(":/")[0].strip("[]") if source.type.startswith("nfs") else ""
