"""Mounts of volumes with driver options: mounted while a container that has them runs.

The mount is made in the mount namespace of engine and shims, so the host does not see it. The next
engine has another such namespace. It mounts again what keeps its content elsewhere. A file system
in memory that a container still uses is copied from the mount namespace of that container's shim.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.volumes.mount_sources import mount_data, parse_driver_options, server_name
from jaula.errors import InvalidRequest, NotFound, Unavailable
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MNT, MOUNT_ATTR
from jaula.kernel.namespace_threads import clone_tree_of, in_unshared_thread
from jaula.kernel.namespaces import CLONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jaula.engine.model.container import Container
    from jaula.engine.model.container_store import ContainerStore
    from jaula.engine.model.event_log import EventBus
    from jaula.engine.volumes.mount_sources import VolumeSource
    from jaula.state.container_records import ContainerRecord, MountRecord
    from jaula.storage.volume_directories import Volume, VolumeStore


class VolumeMounts:
    """The mounts of one engine's volumes."""

    def __init__(
        self, volumes: VolumeStore, registry: ContainerStore, host_mounts: int = -1
    ) -> None:
        """``host_mounts`` is a descriptor of the host's mount namespace, -1 if it is the own."""
        self._volumes = volumes
        self._registry = registry
        self._host_mounts = host_mounts
        self._lock = asyncio.Lock()
        self._using: dict[str, set[str]] = {}  # containers by volume, from the begin of their start

    async def use(self, record: ContainerRecord) -> None:
        """Mount the volumes of a container that is being started.

        The mounts stay until :meth:`leave`, which the caller must also call if the start fails.

        :raises Unavailable: when a volume cannot be mounted.
        :raises InvalidRequest: when its options name nothing that can be mounted.
        """
        for volume, source in self._mounted(record):
            self._using.setdefault(volume.name, set()).add(record.id)
            async with self._lock:
                if not mounts.is_mount_point(volume.path):
                    holder = self._holder(volume.name, source)
                    await asyncio.to_thread(_make, volume, source, holder, self._host_mounts)

    def private(self, record: ContainerRecord) -> frozenset[str]:
        """Return the names of the volumes that are mounted in the engine's namespace alone."""
        return frozenset(volume.name for volume, _ in self._mounted(record))

    def leave(self, container: Container) -> None:
        """Unmount the volumes that no other container uses, running or being started."""
        for volume, _ in self._mounted(container.record):
            users = self._using.pop(volume.name, set())
            users |= {user.id for user in self._users(volume.name)}
            if users := users - {container.id}:
                self._using[volume.name] = users
            else:
                _unmount(volume.path)

    def leave_mounts(self, container: Container, mounts: Iterable[MountRecord]) -> None:
        """Unmount the volumes of removed mounts that no container uses, this one included."""
        removed = msgspec.structs.replace(container.record, mounts=tuple(mounts))
        for volume, _ in self._mounted(removed):
            users = self._using.pop(volume.name, set()) - {container.id}
            users |= {user.id for user in self._users(volume.name)}
            if users:
                self._using[volume.name] = users
            else:
                _unmount(volume.path)

    def _mounted(self, record: ContainerRecord) -> Iterator[tuple[Volume, VolumeSource]]:
        for name in dict.fromkeys(m.name for m in record.mounts if m.type == "volume"):
            try:
                volume = self._volumes.get(name)
            except NotFound:
                continue  # the mount itself raises the error
            source = parse_driver_options(volume.options)
            if source is not None:
                yield volume, source

    def _users(self, name: str) -> Iterator[Container]:
        for container in self._registry:
            if container.live and any(m.name == name for m in container.record.mounts):
                yield container

    def _holder(self, name: str, source: VolumeSource) -> int:
        """Return the pid of a shim whose namespace has the content of a volume in memory, or 0."""
        if not source.in_memory:
            return 0
        return next((user.record.shim_pid for user in self._users(name)), 0)


def mount_volume(volume: Volume, host_mounts: int) -> None:
    """Mount a volume with driver options in this thread's own mount namespace.

    ``host_mounts`` is a descriptor of the host's mount namespace, -1 if that is the engine's.

    :raises Unavailable: when it cannot be mounted.
    """
    source = parse_driver_options(volume.options)
    if source is not None and not mounts.is_mount_point(volume.path):
        _make(volume, source, 0, host_mounts)


def _unmount(path: str) -> None:
    try:
        while mounts.is_mount_point(path):
            mounts.umount2(path, MNT.DETACH)
    except FileNotFoundError:
        return  # the user removed it by hand


def _make(volume: Volume, source: VolumeSource, holder: int, host_mounts: int) -> None:
    tree = -1
    try:
        if holder:
            tree = clone_tree_of(holder, volume.path)
        if tree < 0:
            tree = _bind(source, host_mounts) if source.options.bind else _file_system(source)
        mounts.move_mount(tree, volume.path)
    except OSError as error:
        raise _mount_error(volume, source, error) from None
    finally:
        if tree >= 0:
            os.close(tree)


def _bind(source: VolumeSource, host_mounts: int) -> int:
    """Return a detached mount of a directory with the flags that it has on the host now."""
    options = source.options

    def clone() -> int:
        return mounts.clone_tree(source.device, recursive=options.recursive)

    def clone_on_host() -> int:
        namespaces.unshare(CLONE.FS)  # setns(2) refuses a shared root directory
        return namespaces.in_mount_namespace(host_mounts, clone)

    tree = clone() if host_mounts < 0 else in_unshared_thread(clone_on_host)
    try:
        if not os.path.isdir(f"/proc/self/fd/{tree}"):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if options.set or options.clear:
            mounts.mount_setattr(tree, set=options.set, clear=options.clear)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _file_system(source: VolumeSource) -> int:
    name = server_name(source)
    address = str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]) if name else ""
    read_only = () if source.writable else (("ro", None),)
    return mounts.new_filesystem(
        source.type,
        (*mount_data(source, address), *read_only),
        MOUNT_ATTR(source.options.set),
        source=source.device,
    )


def _mount_error(
    volume: Volume, source: VolumeSource, error: OSError
) -> Unavailable | InvalidRequest:
    what = f"failed to mount local volume {volume.name}: {source.device} ({source.type})"
    if isinstance(error, socket.gaierror):
        return InvalidRequest(f"{what}: cannot resolve {server_name(source)!r}")
    if error.errno == errno.ENODEV:
        return InvalidRequest(
            f"{what}: this kernel does not support the file system {source.type!r}"
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return InvalidRequest(f"{what}: {os.strerror(error.errno).lower()}")
    if error.errno == errno.EINVAL:
        return InvalidRequest(f"{what}: {error.strerror}")
    return Unavailable(f"{what}: {error.strerror}")


# -- events --------------------------------------------------------------------------------------


def emit_mounts(events: EventBus, record: ContainerRecord) -> None:
    """Emit an event for each volume of a container that was started.

    Source: Docker Engine API 1.45, ``SystemEvents``; the attributes are dockerd's.
    """
    for mount in record.mounts:
        if mount.type == "volume":
            attributes = {
                "container": record.id,
                "destination": mount.destination,
                "driver": mount.driver,
                "propagation": mount.propagation,
                "read/write": str(not mount.read_only).lower(),
            }
            events.emit("volume", "mount", mount.name, attributes)


def emit_unmounts(events: EventBus, record: ContainerRecord) -> None:
    """Emit an event for each volume of a container that has exited."""
    for mount in record.mounts:
        if mount.type == "volume":
            attributes = {"container": record.id, "driver": mount.driver}
            events.emit("volume", "unmount", mount.name, attributes)
