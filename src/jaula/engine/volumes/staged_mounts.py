"""Mounts that a start makes in the engine's own mount namespace, for the runtime to bind.

Each mount is below a directory of the start in ``run``. The host does not see it, and it is gone
when the engine is killed. Mount points are removed by name and never recursively, since something
that must stay may be mounted there.

Facts about mounts: an overlay cannot be id-mapped, its layers can
(:mod:`jaula.runtime.create.mount_rootfs`). Linux before 6.15 cannot clone a part of a detached
mount, so a root is attached before a directory of it is cloned.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest
from jaula.kernel import mounts, openat2
from jaula.kernel.mounts import MNT, MOUNT_ATTR
from jaula.kernel.namespace_threads import in_unshared_thread
from jaula.spec.rootfs import OverlayRoot, RootSource

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdMaps


@asynccontextmanager
async def user_namespace(services: Services, maps: IdMaps) -> AsyncIterator[int | None]:
    """Yield a descriptor of a user namespace with ``maps``; None if mounts need no id map."""
    uids, gids = maps
    if not uids or services.host.rootless:
        yield None
        return
    sandbox = await services.runtime.sandbox(uids, network=False, gid_mappings=gids)
    try:
        yield sandbox.user_fd
    finally:
        sandbox.close()


class StagedMounts:
    """The mounts of one start below ``directory``, which :meth:`detach` removes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._attached: list[str] = []

    def make_dir(self, name: int | str) -> Path:
        """Create a directory to mount on."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = self._directory / str(name)
        directory.mkdir(mode=0o700)
        return directory

    def make_mount_point(self, name: int | str, source: int) -> Path:
        """Create a directory or a file, whichever ``source`` can be mounted on."""
        if stat.S_ISDIR(os.fstat(source).st_mode):
            return self.make_dir(name)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._directory / str(name)
        file.touch(mode=0o600)
        return file

    def move(self, tree: int, mount_point: Path) -> str:
        """Attach a detached mount; return its path."""
        mounts.move_mount(tree, str(mount_point))
        self._attached.append(str(mount_point))
        return str(mount_point)

    def move_part(self, tree: int, name: int | str, path: str, title: str) -> str:
        """Attach the file or directory at ``path`` in a detached mount, which is closed.

        ``title`` names the mount in errors. The path is resolved within it.

        :raises InvalidRequest: when there is no such path.
        """
        try:
            if path.strip("/") in ("", "."):
                return self.move(tree, self.make_dir(name))
            whole = self.move(tree, self.make_dir(f"{name}-whole"))
        finally:
            os.close(tree)
        with opened(whole) as root:
            try:
                source = openat2.open_in_root(root, path, os.O_PATH)
            except OSError as error:
                raise InvalidRequest(f"{path!r} is not in {title}: {error.strerror}") from error
        try:
            part = mounts.clone_tree("", dir_fd=source)
            try:
                return self.move(part, self.make_mount_point(name, source))
            finally:
                os.close(part)
        finally:
            os.close(source)

    def detach(self) -> None:
        """Unmount everything and remove the mount points. Safe in any thread and repeatedly."""
        while self._attached:
            mounts.umount2(self._attached.pop(), MNT.DETACH)
        remove_mount_points(self._directory)


def remove_mount_points(directory: Path) -> None:
    """Remove a start's directory, with empty files and directories and nothing else."""
    try:
        mount_points = tuple(directory.iterdir())
    except FileNotFoundError:
        return
    for mount_point in mount_points:
        if mount_point.is_dir():
            mount_point.rmdir()
        else:
            mount_point.unlink()
    directory.rmdir()


def mount_layers(
    root: RootSource, user_fd: int | None, owner: tuple[int, int], label: str | None
) -> int:
    """Return a detached mount of layers, for a thread of the engine.

    The arguments are those of :func:`~jaula.runtime.create.mount_rootfs.mount_root`. A single layer
    without a writable directory is not an overlay.
    """
    if isinstance(root, OverlayRoot) and root.upper is None and len(root.lowers) == 1:
        return map_tree(mounts.clone_tree(root.lowers[0]), user_fd, read_only=True)
    from jaula.runtime.create import mount_rootfs

    return in_unshared_thread(lambda: mount_rootfs.mount_root(root, user_fd, owner, context=label))


def map_tree(tree: int, user_fd: int | None, *, read_only: bool) -> int:
    """Id-map a detached mount and set its attributes; return it. A failure closes it."""
    try:
        if user_fd is not None:
            mounts.idmap(tree, user_fd)
        attributes = MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV
        mounts.mount_setattr(tree, set=attributes | (MOUNT_ATTR.RDONLY if read_only else 0))
    except BaseException:
        os.close(tree)
        raise
    return tree


@contextmanager
def opened(path: str) -> Iterator[int]:
    """Open a path of the engine with ``O_PATH``."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
