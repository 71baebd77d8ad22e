"""The btrfs driver: a container's files are a snapshot of a subvolume that holds its image.

Where trees are is said in :mod:`jaula.storage.drivers.full_copy`. A merged tree is a subvolume that is
read-only, made from that of the longest stack below it which is there. Its files share their data
with the unpacked layers (copy_file_range(2) makes reflinks), so it costs metadata only.

A limit counts what the container writes, since a snapshot shares the rest. With simple quotas it
is a group of level 1 that subvolumes made inside the container join by themselves; a file system
that keeps quotas in full has a limit for the container's own subvolume alone.
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
from jaula.kernel import btrfs
from jaula.storage.diff import tree_differences
from jaula.storage.drivers.driver import ChangeKind
from jaula.storage.drivers.full_copy import HALF_MADE, FullCopyDriver, chain_name
from jaula.storage.filesystem_type import filesystem_name
from jaula.storage.layers.store import LayerStore
from jaula.storage.trees import (
    DIRECTORY_FLAGS,
    open_directory,
    open_subdirectory,
    remove_tree,
    write_new,
)

_LIMITED = "limited"
_NO_GROUP = (errno.ENOENT, errno.ENOTCONN, errno.EINVAL)
"""There is no such group or member, or the file system keeps no quota any more."""
_GOES_LATER = (*_NO_GROUP, errno.EBUSY)
"""The group of a subvolume: since Linux 6.11 it goes when the last of its data is freed."""


class BtrfsDriver(FullCopyDriver):
    """A :class:`~jaula.storage.drivers.driver.SnapshotDriver`."""

    name = "btrfs"

    def __init__(self, paths: Paths, layers: LayerStore, *, rootless: bool = False) -> None:
        paths.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        if filesystem_name(paths.root) != "btrfs":
            raise Unsupported(
                f"btrfs snapshots do not work on {filesystem_name(paths.root)} at {paths.root}",
                hint="use a root directory on btrfs, or another driver",
            )
        if rootless:
            raise Unsupported("an ordinary user's engine may not remove subvolumes of btrfs")
        super().__init__(paths, layers)
        self._probe()

    def _probe(self) -> None:
        name = f".probe-{secrets.token_hex(6)}"
        try:
            with open_directory(self._paths.root) as parent:
                try:
                    btrfs.subvol_create(parent, name)
                finally:
                    self._remove(parent, name)
        except OSError as error:
            raise Unsupported(
                f"btrfs makes no subvolumes at {self._paths.root}: {error}"
            ) from error

    def usage(self, id: str) -> int:
        """Bytes of the regular files that were written, each inode once."""
        found: dict[int, int] = {}
        with self._pair(id) as (tree, below):
            for path, kind in tree_differences(tree, below).items():
                if kind is ChangeKind.DELETED:
                    continue
                folder, _, name = path.rpartition(b"/")
                try:
                    parent = open_subdirectory(tree, folder)
                    try:
                        facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
                    finally:
                        os.close(parent)
                except FileNotFoundError:
                    continue  # it went away meanwhile
                if stat.S_ISREG(facts.st_mode):
                    found[facts.st_ino] = facts.st_size
        return sum(found.values())

    def _make(self, parent: int, name: str) -> None:
        btrfs.subvol_create(parent, name)
        os.chmod(name, 0o700, dir_fd=parent)

    def _begin(self, parent: int, name: str, layers: Sequence[str]) -> int:
        for count in range(len(layers) - 1, 0, -1):
            try:
                with open_directory(chain_name(layers[:count]), dir_fd=parent) as below:
                    btrfs.snap_create(below, parent, name)
            except FileNotFoundError:
                continue
            return count
        return super()._begin(parent, name, layers)

    def _finished(self, tree: int) -> None:
        btrfs.set_read_only(tree)

    def _copy(self, source: int, parent: int, name: str, size: int | None) -> None:
        btrfs.snap_create(source, parent, name)
        if size is not None:
            write_new(parent, _LIMITED, b"")
            with open_directory(name, dir_fd=parent) as tree:
                self._limit(tree, size)

    def _remove(self, parent: int, name: str) -> None:
        try:
            tree = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
        except FileNotFoundError:
            return
        try:
            if not btrfs.is_subvol(tree):
                remove_tree(parent, name.encode())
                return
            subvolumes = _with_nested(tree)
        finally:
            os.close(tree)
        for number in reversed(subvolumes):
            btrfs.snap_destroy(parent, number)
            with _unless(*_GOES_LATER):
                btrfs.qgroup_remove(parent, number)

    # -- limits ---------------------------------------------------------------------------------

    def _limit(self, tree: int, size: int) -> None:
        number = btrfs.subvol_id(tree)
        group = btrfs.qgroup(1, number)
        try:
            try:
                btrfs.qgroup_create(tree, group)
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
                btrfs.quota_enable(tree)
                btrfs.qgroup_create(tree, group)
            btrfs.qgroup_assign(tree, number, group)
            btrfs.qgroup_limit(tree, group, size)
        except OSError as error:
            raise Unsupported(
                f"--storage-opt size= is not possible on btrfs at {self._paths.root}: {error}",
                hint="`btrfs quota enable --simple` says why",
            ) from error

    def _unlimited(self, parent: int) -> None:
        """A full group refuses removals as well, so its limit goes first."""
        try:
            os.stat(_LIMITED, dir_fd=parent)
        except FileNotFoundError:
            return
        for name in os.listdir(parent):
            if name == "rootfs" or name.startswith(HALF_MADE):
                with open_directory(name, dir_fd=parent) as tree:
                    self._forget_group(tree)
        os.unlink(_LIMITED, dir_fd=parent)

    def _forget_group(self, tree: int) -> None:
        subvolumes = _with_nested(tree)
        group = btrfs.qgroup(1, subvolumes[0])
        with _unless(*_NO_GROUP):
            btrfs.qgroup_limit(tree, group, btrfs.UNLIMITED)
        for number in subvolumes:
            with _unless(*_NO_GROUP):
                btrfs.qgroup_assign(tree, number, group, assign=False)
        with _unless(*_NO_GROUP):
            btrfs.qgroup_remove(tree, group)


def _with_nested(tree: int) -> list[int]:
    """Ids of a subvolume and of those below it, each before what it holds."""
    found = [btrfs.subvol_id(tree)]
    for number in found:  # grows while it is walked
        found += btrfs.children(tree, number)
    return found


@contextmanager
def _unless(*codes: int) -> Iterator[None]:
    """Let pass what the kernel says of a group that is not there, or not to be removed yet."""
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise
