"""``RUN --mount``: make the mounts of a step and attach them before its container starts.

Each mount is made, resolved, shown with the owners of the container's user namespace, and attached
below a directory of the step in ``run``. The runtime then binds it from there. So a path in a
Dockerfile is looked up once, inside the tree that it belongs to (``RESOLVE_IN_ROOT``). The
container gets that very file or directory, whatever a parallel step changes.

The mounts exist in the engine's own mount namespace only
(:mod:`jaula.engine.volumes.staged_mounts`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jaula.engine.oci_spec import security_opt
from jaula.engine.threads import in_own_thread
from jaula.engine.volumes import mount_spec
from jaula.engine.volumes.staged_mounts import (
    StagedMounts,
    map_tree,
    mount_layers,
    opened,
    remove_mount_points,
    user_namespace,
)
from jaula.errors import InvalidRequest, JaulaError
from jaula.features.build.builder.mounts.kinds import (
    BindMount,
    CacheMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from jaula.kernel import mounts
from jaula.kernel.mounts import MOUNT_ATTR
from jaula.runtime.create import user_namespace_maps
from jaula.security.lsm import selinux_choice
from jaula.spec.rootfs import OverlayRoot
from jaula.state.container_records import MountRecord
from jaula.storage.relabel import relabel

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from jaula.config import Paths
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdMaps
    from jaula.features.build.builder.mounts.kinds import StepMount

_OPTIONS = ("bind", "rprivate", "nosuid", "nodev")
_SECRET_SIZE = 1 << 20  # bytes of the file system that holds one secret
_NAME = "content"


def sweep(paths: Paths) -> None:
    """Remove the mount points that steps of a killed engine left."""
    try:
        directories = tuple(_attach_root(paths).iterdir())
    except FileNotFoundError:
        return
    for directory in directories:
        remove_mount_points(directory)


def _attach_root(paths: Paths) -> Path:
    """Return the directory with one directory for each step."""
    return paths.run / "builds"


class StepMounts:
    """The mounts of one step."""

    def __init__(self, services: Services, mounts: Sequence[StepMount]) -> None:
        self._services = services
        self._mounts = tuple(mounts)
        self._staged: StagedMounts | None = None
        for mount in self._mounts:
            if mount.target:
                mount_spec.destination(mount.target)

    @property
    def targets(self) -> tuple[str, ...]:
        """The mount points in the container."""
        return tuple(mount.target for mount in self._mounts if mount.target)

    def attach_on_start(self, container: Container) -> Callable[[IdMaps], Awaitable[None]]:
        """Return the function that a start calls with the id maps of the user namespace."""

        async def attach(maps: IdMaps) -> None:
            if not self._mounts:
                return
            uids, gids = maps
            async with user_namespace(self._services, maps) as user_fd:
                staged = StagedMounts(_attach_root(self._services.config.paths) / container.id)
                self._staged = staged
                attacher = MountAttacher(
                    self._services, container, (uids, gids or uids), user_fd, staged
                )
                records = await in_own_thread(lambda: attacher.attach(self._mounts))
                container.bundle = attacher.bundle
            container.transient_env = tuple(
                f"{m.variable}={m.content.decode(errors='surrogateescape')}"
                for m in self._mounts
                if isinstance(m, SecretMount) and m.variable
            )
            container.change(mounts=records)

        return attach

    def detach(self) -> None:
        """Unmount everything and remove the mount points. Safe in any thread and repeatedly."""
        if self._staged is not None:
            self._staged.detach()
            self._staged = None


class MountAttacher:
    """Makes the mounts of one start in ``staged``. Synchronous, for a thread of its own.

    ``user_fd`` is a user namespace with the ids of ``maps``; None if the mounts need no id map.
    """

    def __init__(
        self,
        services: Services,
        container: Container,
        maps: IdMaps,
        user_fd: int | None,
        staged: StagedMounts,
    ) -> None:
        self._maps = maps
        self._user_fd = user_fd
        self._owner = (
            user_namespace_maps.host_id(maps[0], 0),
            user_namespace_maps.host_id(maps[1], 0),
        )
        self._staged = staged
        self._container_dir = services.config.paths.container(container.id)
        record = container.record
        label = security_opt.selinux_labels(record.resolved, services.host, record.level).mount
        self._label = (label or None) if services.host.selinux else None
        self._shared_label = ""
        if self._label:
            shared = services.host.selinux_types.file._replace(level=selinux_choice.SHARED_LEVEL)
            self._shared_label = str(shared)
        self.bundle = ""  # on a tmpfs, if environment variables are secret

    def attach(self, requests: Sequence[StepMount]) -> tuple[MountRecord, ...]:
        """Make all mounts.

        :raises InvalidRequest: when a mount cannot be made.
        """
        records: dict[str, MountRecord] = {}
        if any(isinstance(mount, SecretMount) and mount.variable for mount in requests):
            self.bundle = self._tmpfs("bundle")
        for index, mount in enumerate(requests):
            try:
                record = self._attach_one(index, mount)
            except OSError as error:
                target = mount.target or getattr(mount, "variable", "")
                raise InvalidRequest(
                    f"the mount at {target} cannot be made: {error.strerror or error}"
                ) from error
            if record is not None:
                records[record.destination] = record
        return tuple(records.values())

    def _attach_one(self, index: int, mount: StepMount) -> MountRecord | None:
        if isinstance(mount, TmpfsMount):
            size = (f"size={mount.size}",) if mount.size else ()
            options = ("nosuid", "nodev", "mode=1777", *size)
            return MountRecord("tmpfs", mount_spec.destination(mount.target), options=options)
        if isinstance(mount, SecretMount) and not mount.target:
            return None
        match mount:
            case BindMount():
                source, read_only = self._bind(index, mount), not mount.writable
            case CacheMount():
                source, read_only = self._cache(index, mount), not mount.writable
            case SecretMount():
                source, read_only = self._secret(index, mount), True
            case SshMount():
                source, read_only = self._socket(index, mount), False
        return MountRecord(
            "bind",
            mount_spec.destination(mount.target),
            source=source,
            read_only=read_only,
            propagation="rprivate",
            options=_OPTIONS,
            mapped=True,
        )

    # -- trees -------------------------------------------------------------------------------

    def _bind(self, index: int, mount: BindMount) -> str:
        tree = self._root(index, mount)
        return self._staged.move_part(tree, index, mount.source, mount.title or "the context")

    def _root(self, index: int, mount: BindMount) -> int:
        upper = work = None
        if mount.writable:
            top = self._container_dir / f"mount-{index}"
            upper, work = str(top / "upper"), str(top / "work")
            for directory in (top, top / "upper", top / "work"):
                directory.mkdir(mode=0o755)
        lowers = mount.lowers
        if self._label and len(lowers) == 1:  # only an overlay can hide the labels of the files
            lowers = (*lowers, str(self._staged.make_dir(f"{index}-empty")))
        root = OverlayRoot(
            lowers,
            upper,
            work,
            id_mapped=self._user_fd is not None,
            user_xattr=self._user_fd is None and bool(self._maps[0]),
            volatile=True,
        )
        return mount_layers(root, self._user_fd, self._owner, self._label)

    def _cache(self, index: int, mount: CacheMount) -> str:
        if self._label:
            with opened(mount.path) as directory:
                relabel(directory, self._shared_label)
        tree = map_tree(mounts.clone_tree(mount.path), self._user_fd, read_only=not mount.writable)
        try:
            with opened(mount.path) as directory:
                return self._staged.move(tree, self._staged.make_mount_point(index, directory))
        finally:
            os.close(tree)

    # -- single files ------------------------------------------------------------------------

    def _secret(self, index: int, mount: SecretMount) -> str:
        directory = self._tmpfs(index, executable=mount.mode & 0o111 != 0)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        with opened(directory) as parent:
            descriptor = os.open(_NAME, flags, 0o600, dir_fd=parent)
            with open(descriptor, "wb", buffering=0) as file:
                file.write(mount.content)
                os.fchown(descriptor, *self._host_ids(mount.uid, mount.gid))
                os.fchmod(descriptor, mount.mode)
        return f"{directory}/{_NAME}"

    def _socket(self, index: int, mount: SshMount) -> str:
        path = f"{self._tmpfs(index)}/{_NAME}"
        mount.listen(path)
        os.chown(path, *self._host_ids(mount.uid, mount.gid))
        os.chmod(path, mount.mode)
        return path

    def _tmpfs(self, name: int | str, *, executable: bool = False) -> str:
        options: tuple[tuple[str, str | None], ...] = (
            ("mode", "0755"),
            ("size", str(_SECRET_SIZE)),
        )
        if self._label:
            options = (*options, ("context", self._label))
        attributes = MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV
        attributes |= MOUNT_ATTR(0) if executable else MOUNT_ATTR.NOEXEC
        try:  # since Linux 6.4; keeps the content out of swap
            tree = mounts.new_filesystem("tmpfs", (*options, ("noswap", None)), attributes)
        except OSError:
            tree = mounts.new_filesystem("tmpfs", options, attributes)
        try:
            return self._staged.move(tree, self._staged.make_dir(name))
        finally:
            os.close(tree)

    def _host_ids(self, uid: int, gid: int) -> tuple[int, int]:
        try:
            return user_namespace_maps.host_id(self._maps[0], uid), user_namespace_maps.host_id(
                self._maps[1], gid
            )
        except JaulaError as error:
            raise InvalidRequest(error.message, hint=error.hint) from None
