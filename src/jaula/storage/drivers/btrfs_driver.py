"""The btrfs driver: a container's root is a snapshot of the subvolume of its image.

:mod:`jaula.storage.drivers.full_copy` describes the paths. A merged tree is a read-only subvolume,
made from the merged tree of the longest prefix of its layers. Its files share their data with the
unpacked layers (copy_file_range(2) makes reflinks), so it costs metadata only.

A size limit counts what the container writes, because a snapshot shares the rest. With simple
quotas it is a qgroup of level 1, which subvolumes created inside the container join automatically.
With full quotas the limit applies to the container's own subvolume only.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jaula.config import Paths
from jaula.errors import Unsupported
from jaula.kernel import btrfs_ioctl
from jaula.storage.drivers.full_copy import INCOMPLETE, FullCopyDriver, chain_name
from jaula.storage.drivers.storage_driver import ChangeKind, SnapshotUsage
from jaula.storage.filesystem_type import filesystem_name
from jaula.storage.layer_diff import tree_differences
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.trees import (
    DIRECTORY_FLAGS,
    open_directory,
    open_subdirectory,
    remove_tree,
    write_new,
)

_LIMIT_MARK = "limited"
_NO_GROUP = (errno.ENOENT, errno.ENOTCONN, errno.EINVAL)
"""The qgroup or its member does not exist, or quotas were disabled."""
_BUSY_GROUP = (*_NO_GROUP, errno.EBUSY)
"""Since Linux 6.11 a subvolume's qgroup can be removed only when its last data is freed."""


class BtrfsDriver(FullCopyDriver):
    """A :class:`~jaula.storage.drivers.storage_driver.SnapshotDriver` on btrfs."""

    name = "btrfs"

    def __init__(
        self,
        paths: Paths,
        layers: LayerStore,
        *,
        rootless: bool = False,
        probed: bool = False,
        durable: bool = True,
    ) -> None:
        paths.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        if filesystem_name(paths.root) != "btrfs":
            raise Unsupported(
                f"btrfs snapshots do not work on {filesystem_name(paths.root)} at {paths.root}",
                hint="use a root directory on btrfs, or another driver",
            )
        if rootless:
            raise Unsupported("a rootless engine cannot remove btrfs subvolumes")
        super().__init__(paths, layers, durable=durable)
        if not probed:
            self._probe()

    def _probe(self) -> None:
        name = f".probe-{secrets.token_hex(6)}"
        try:
            with open_directory(self._paths.root) as parent:
                try:
                    btrfs_ioctl.subvol_create(parent, name)
                finally:
                    self._remove_tree(parent, name)
        except OSError as error:
            raise Unsupported(
                f"btrfs cannot create subvolumes at {self._paths.root}: {error}"
            ) from error

    def usage(self, id: str) -> SnapshotUsage:
        """Return the bytes of the regular files that were written, and the inodes."""
        sizes: dict[int, int] = {}
        with self._tree_and_base(id) as (tree, lower):
            for path, kind in tree_differences(tree, lower).items():
                if kind is ChangeKind.DELETED:
                    continue
                directory, _, name = path.rpartition(b"/")
                try:
                    parent = open_subdirectory(tree, directory)
                    try:
                        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                    finally:
                        os.close(parent)
                except FileNotFoundError:
                    continue  # removed meanwhile
                sizes[status.st_ino] = status.st_size if stat.S_ISREG(status.st_mode) else 0
        return SnapshotUsage(sum(sizes.values()), len(sizes))

    def _create_tree(self, parent: int, name: str) -> None:
        btrfs_ioctl.subvol_create(parent, name)
        os.chmod(name, 0o700, dir_fd=parent)

    def _create_base(self, parent: int, name: str, layers: Sequence[str]) -> int:
        for depth in range(len(layers) - 1, 0, -1):
            try:
                with open_directory(chain_name(layers[:depth]), dir_fd=parent) as lower:
                    btrfs_ioctl.snap_create(lower, parent, name)
            except FileNotFoundError:
                continue
            return depth
        return super()._create_base(parent, name, layers)

    def _seal(self, tree: int) -> None:
        btrfs_ioctl.set_read_only(tree)

    def _copy_tree(self, source: int, parent: int, name: str, size: int | None) -> None:
        btrfs_ioctl.snap_create(source, parent, name)
        if size is not None:
            write_new(parent, _LIMIT_MARK, b"")
            with open_directory(name, dir_fd=parent) as tree:
                self._set_limit(tree, size)

    def _remove_tree(self, parent: int, name: str) -> None:
        try:
            tree = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        except FileNotFoundError:
            return
        try:
            if not btrfs_ioctl.is_subvol(tree):
                remove_tree(parent, name.encode())
                return
            subvolumes = _with_nested(tree)
        finally:
            os.close(tree)
        for subvolume in reversed(subvolumes):
            btrfs_ioctl.snap_destroy(parent, subvolume)
            with _ignore_errors(*_BUSY_GROUP):
                btrfs_ioctl.qgroup_remove(parent, subvolume)

    # -- limits ---------------------------------------------------------------------------------

    def _set_limit(self, tree: int, size: int) -> None:
        subvolume = btrfs_ioctl.subvol_id(tree)
        group = btrfs_ioctl.qgroup(1, subvolume)
        try:
            try:
                btrfs_ioctl.qgroup_create(tree, group)
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
                btrfs_ioctl.quota_enable(tree)
                btrfs_ioctl.qgroup_create(tree, group)
            btrfs_ioctl.qgroup_assign(tree, subvolume, group)
            btrfs_ioctl.qgroup_limit(tree, group, size)
        except OSError as error:
            raise Unsupported(
                f"--storage-opt size= is not possible on btrfs at {self._paths.root}: {error}",
                hint="`btrfs quota enable --simple` says why",
            ) from error

    def _is_limited(self, parent: int) -> bool:
        return _LIMIT_MARK in os.listdir(parent)

    def _clear_limits(self, parent: int) -> None:
        """Clear the limit before a removal, because a full qgroup refuses removals too."""
        try:
            os.stat(_LIMIT_MARK, dir_fd=parent)
        except FileNotFoundError:
            return
        for name in os.listdir(parent):
            if name == "rootfs" or name.startswith(INCOMPLETE):
                with open_directory(name, dir_fd=parent) as tree:
                    subvolumes = _with_nested(tree)
                self._remove_group(parent, subvolumes)
        os.unlink(_LIMIT_MARK, dir_fd=parent)

    def _remove_group(self, parent: int, subvolumes: list[int]) -> None:
        """Remove the group of the first subvolume, whose nested ones are the others.

        The calls change the quotas of the file system, but the kernel may reserve space for them in
        the subvolume of their descriptor. ``parent`` is outside the full one.
        """
        group = btrfs_ioctl.qgroup(1, subvolumes[0])
        with _ignore_errors(*_NO_GROUP):
            btrfs_ioctl.qgroup_limit(parent, group, btrfs_ioctl.UNLIMITED)
        for subvolume in subvolumes:
            with _ignore_errors(*_NO_GROUP):
                btrfs_ioctl.qgroup_assign(parent, subvolume, group, assign=False)
        with _ignore_errors(*_NO_GROUP):
            btrfs_ioctl.qgroup_remove(parent, group)


def _with_nested(tree: int) -> list[int]:
    """Return the ids of a subvolume and its nested ones, each before those inside it."""
    subvolumes = [btrfs_ioctl.subvol_id(tree)]
    for subvolume in subvolumes:  # the loop extends the list
        subvolumes += btrfs_ioctl.children(tree, subvolume)
    return subvolumes


@contextmanager
def _ignore_errors(*codes: int) -> Iterator[None]:
    """Ignore ``OSError`` with one of these errno values."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise
