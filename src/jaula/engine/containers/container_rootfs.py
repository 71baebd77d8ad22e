"""The root file system of a container as a descriptor, whether it runs or not.

That of a running container is ``/proc/PID/root``, opened once with its mount namespace. Its mounts
are visible, owners are ids of the host, and files must be created as the container's root user. The
namespace keeps the mounts attached if the container exits: without it, a file that is copied into a
volume would be written below the volume. For a stopped container the
snapshot, its volumes and bind mounts are mounted in a mount namespace of one thread. Owners are
plain ids there, and the kernel unmounts everything when the thread ends.

Facts: a thread may leave the mount namespace of its process (unshare(2)). This also separates its
working directory and root from those of the other threads, so the thread must end and not be used
again. Two writable mounts of one upper directory are undefined, so a writer holds the container's
lock.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from jaula.engine.containers.container_liveness import has_exited, not_running
from jaula.engine.networks import provided_files
from jaula.engine.oci_spec.start_spec import working_directory
from jaula.engine.userns import join
from jaula.engine.volumes.volume_mount import mount_volume
from jaula.errors import Conflict, InvalidRequest, NotFound, RuntimeFailure
from jaula.kernel import mounts, namespaces, openat2
from jaula.kernel.mounts import MOUNT_ATTR, MS
from jaula.kernel.namespace_threads import in_unshared_thread
from jaula.runtime.create import user_namespace_maps
from jaula.spec.annotations import path_below
from jaula.spec.rootfs import OverlayRoot
from jaula.spec.runtime_spec import IDMapping

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord, MountRecord

Result = TypeVar("Result")
Rows = tuple[IDMapping, ...]
NOBODY = 65534
"""The kernel's overflow uid, for an id without a mapping in the namespace."""


class RootfsView:
    """An open root; ``outside`` and ``inside`` translate owners to and from the file system's.

    ``dev`` is the device number of ``/dev``, ``secret`` those of mounted secrets and configs
    ; 0 and empty if absent.
    """

    def __init__(
        self, root: int, ids: Rows, dev: int = 0, secret: frozenset[int] = frozenset()
    ) -> None:
        self.root = root
        self.dev = dev
        self.secret = secret
        self._ids = ids

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner as ids inside the container."""
        return self._inside(uid), self._inside(gid)

    def _inside(self, number: int) -> int:
        if not self._ids:
            return number
        for row in self._ids:
            if row.host_id <= number < row.host_id + row.size:
                return row.container_id + number - row.host_id
        return NOBODY

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner as ids of the file system.

        :raises InvalidRequest: when an id has no mapping.
        """
        try:
            return user_namespace_maps.host_id(self._ids, uid), user_namespace_maps.host_id(
                self._ids, gid
            )
        except RuntimeFailure as error:
            raise InvalidRequest(error.message) from None


class RunningRoot:
    """The root and the mount namespace of a running container, as descriptors, and its id range."""

    def __init__(self, root: int, namespace: int, ids: Rows) -> None:
        self.root = root
        self.namespace = namespace
        self.ids = ids

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.root)
        os.close(self.namespace)


async def open_running(
    container: Container, ids_of: Callable[[Container], Rows], was_running: bool
) -> RunningRoot | None:
    """Open the root of a running container, or return None if it does not run.

    The exit of one that is just ending is awaited. The caller closes the result.

    :raises Conflict: when it ``was_running`` at its authorization, has exited since, and has bind
        mounts. The engine would mount them with the rights of root, which needs an authorization.
    """
    while container.live:
        shim = container.shim
        try:
            return RunningRoot(*join.open_mounts(container), ids_of(container))
        except Conflict:
            if not await has_exited(container, shim):
                raise
    if was_running and any(mount.type == "bind" for mount in container.record.mounts):
        raise not_running(container)
    return None


def with_rootfs(
    services: Services,
    record: ContainerRecord,
    running: RunningRoot | None,
    work: Callable[[RootfsView], Result],
    *,
    write: bool,
) -> Result:
    """Do ``work`` on the root, as the container's root user; call from a thread that may block.

    ``running`` is closed.
    """
    if running is None:
        return in_unshared_thread(lambda: _stopped(services, record, work, write=write))
    root, ids = running.root, running.ids
    try:
        from jaula.runtime.create import mount_rootfs

        with mount_rootfs.acting_as(RootfsView(root, ids).outside(0, 0)):
            secret = frozenset(_device(root, path) for path in record.file_targets)
            return work(RootfsView(root, ids, _device(root, "/dev"), secret - {0}))
    finally:
        running.close()


def clone_root(running: RunningRoot) -> int:
    """Return a detached mount of a running container's root, without the mounts below it.

    A mount can be cloned only in its own namespace, so a thread enters that. The thread does
    nothing else there, and the caller still closes ``running``.
    """

    def clone() -> int:
        namespaces.unshare(namespaces.CLONE.FS)  # setns(2) refuses a shared root directory
        namespaces.setns(running.namespace, namespaces.CLONE.NEWNS)
        return mounts.clone_tree("/")

    return in_unshared_thread(clone)


def _device(root: int, path: str) -> int:
    """Return the device number of the file system at ``path``, 0 if it is the root's."""
    try:
        fd = openat2.open_in_root(root, path, os.O_PATH)
    except OSError:
        return 0
    try:
        number = os.fstat(fd).st_dev
        return 0 if number == os.fstat(root).st_dev else number
    finally:
        os.close(fd)


# -- stopped containers --------------------------------------------------------------------------


def _stopped(
    services: Services,
    record: ContainerRecord,
    work: Callable[[RootfsView], Result],
    *,
    write: bool,
) -> Result:
    private = services.volume_mounts.private(record)
    namespaces.unshare(namespaces.CLONE.NEWNS)
    mounts.mount(None, "/", None, MS.REC | MS.PRIVATE)
    directory = str(services.config.paths.container(record.id))
    source = services.snapshots.root(record.id)
    if not isinstance(source, OverlayRoot):
        tree = mounts.clone_tree(source.path)
    elif write or source.upper is None:
        tree = mounts.overlay(source.lowers, source.upper, source.work, options=source.options)
    else:
        tree = _temporary_overlay(source)
    files: dict[str, int] = {}
    try:
        files = _etc_files(services, record)
        mounts.move_mount(tree, directory)
        root = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
        try:
            for mount in sorted(record.mounts, key=lambda m: m.destination.count("/")):
                if mount.type == "volume":
                    _mount_volume(services, mount.name)
                if mount.type in ("bind", "volume"):
                    host_mounts = -1 if mount.name in private else services.runtime.host_mounts
                    _attach(root, mount, record.beneath, host_mounts)
            for destination, file in files.items():
                _attach_etc_file(root, destination, file)
            if not record.started_at:
                _make_working_directory(root, record)
            if record.resolved.security.readonly_rootfs:
                mounts.mount_setattr(tree, set=MOUNT_ATTR.RDONLY)
            return work(RootfsView(root, ()))
        finally:
            os.close(root)
    finally:
        for descriptor in (*files.values(), tree):
            os.close(descriptor)


def _temporary_overlay(source: OverlayRoot) -> int:
    """Mount the same files below a writable directory in memory, for missing mount points."""
    assert source.upper is not None
    assert source.work is not None
    lowers = (source.upper, *source.lowers)
    memory = mounts.new_filesystem("tmpfs", (("mode", "0700"),))
    try:
        mounts.move_mount(memory, source.work)
        for name in ("upper", "work"):
            os.mkdir(f"{source.work}/{name}", 0o755)
        upper = os.stat(source.upper)
        os.chown(f"{source.work}/upper", upper.st_uid, upper.st_gid)
        os.chmod(f"{source.work}/upper", upper.st_mode & 0o7777)
        os.utime(f"{source.work}/upper", ns=(upper.st_atime_ns, upper.st_mtime_ns))
        return mounts.overlay(
            lowers, f"{source.work}/upper", f"{source.work}/work", options=source.options
        )
    finally:
        os.close(memory)


def _mount_volume(services: Services, name: str) -> None:
    try:
        mount_volume(services.volumes.get(name), services.runtime.host_mounts)
    except NotFound:
        return  # the user removed it by hand


def _etc_files(services: Services, record: ContainerRecord) -> dict[str, int]:
    """Return detached mounts of the files that the engine made for the last run, by destination.

    They are in the directory over which the root will be mounted.
    """
    if not record.started_at:
        return {}
    requested = {mount.destination for mount in record.mounts}
    return {
        destination: mounts.clone_tree(source)
        for destination, source in provided_files.written(services, record).items()
        if destination not in requested
    }


def _attach_etc_file(root: int, destination: str, file: int) -> None:
    check = functools.partial(_refuse_other_mount, root, destination)
    try:
        target = openat2.make_file_in_root(root, destination, check=check)
    except NotADirectoryError:
        return  # the program has put something else in the place of /etc
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            mounts.move_mount(file, "", to_fd=target)
    finally:
        os.close(target)


def _make_working_directory(root: int, record: ContainerRecord) -> None:
    """Create the missing working directory of a container that was never started.

    Docker does this when it creates the container. Here the first access to the files does, since
    most containers are started at once, and the start creates it.
    """
    try:
        check = functools.partial(_refuse_other_mount, root, record.body.working_dir)
        path = working_directory(record.body.working_dir)
        os.close(openat2.make_directory_in_root(root, path, check=check))
    except (FileExistsError, NotADirectoryError):
        pass  # another file has its place, which the start reports


def _refuse_other_mount(root: int, path: str, directory: int) -> None:
    """Check that a directory in which an entry will be created is in the container's root.

    :raises InvalidRequest: when it is below another mount.
    """
    if mounts.mount_id(directory) != mounts.mount_id(root):
        raise InvalidRequest(f"{path}: a symbolic link of the image leads into a bind mount")


def _attach(root: int, mount: MountRecord, bounds: tuple[str, ...], host_mounts: int) -> None:
    """Mount a volume or a host directory at its destination; skip it if its source is gone.

    ``host_mounts`` is the mount namespace in which the source is opened, -1 for the thread's own.
    """
    from jaula.runtime.create.mount_rootfs import open_source

    matching = [b for b in bounds if path_below(mount.source, b) is not None]
    bound = max(matching, key=len) if matching and mount.type == "bind" else None
    if mount.subpath:
        bound = mount.source.removesuffix(f"/{mount.subpath}")
    recursive = "rbind" in mount.options

    def clone() -> int:
        return open_source(mount.source, bound, recursive=recursive)

    try:
        tree = clone() if host_mounts < 0 else namespaces.in_mount_namespace(host_mounts, clone)
    except FileNotFoundError:
        return
    try:
        if mount.read_only:
            mounts.mount_setattr(tree, set=MOUNT_ATTR.RDONLY, recursive=recursive)
        make = (
            openat2.make_directory_in_root
            if os.path.isdir(f"/proc/self/fd/{tree}")
            else openat2.make_file_in_root
        )
        check = functools.partial(_refuse_other_mount, root, mount.destination)
        target = make(root, mount.destination, check=check)
        try:
            mounts.move_mount(tree, "", to_fd=target)
        finally:
            os.close(target)
    finally:
        os.close(tree)
