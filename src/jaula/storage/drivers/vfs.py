"""The vfs driver: a full copy for each container, for hosts where overlay does not work.

:mod:`jaula.storage.drivers.full_copy` describes the paths. File systems with reflinks (btrfs, xfs)
share the data.
"""

from __future__ import annotations

import os

from jaula.config import Paths
from jaula.storage.drivers import project_quota
from jaula.storage.drivers.full_copy import FullCopyDriver
from jaula.storage.drivers.storage_driver import SnapshotUsage
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.trees import copy_tree, open_directory, remove_tree, tree_usage


class VfsDriver(FullCopyDriver):
    """A :class:`~jaula.storage.drivers.storage_driver.SnapshotDriver` for any file system."""

    name = "vfs"

    def __init__(
        self,
        paths: Paths,
        layers: LayerStore,
        *,
        rootless: bool = False,
        probed: bool = False,
        durable: bool = True,
    ) -> None:
        super().__init__(paths, layers, id_mapped=not rootless, durable=durable)

    def usage(self, id: str) -> SnapshotUsage:
        with self._tree_and_base(id) as (tree, _):
            return SnapshotUsage(*tree_usage(tree))

    @property
    def has_quotas(self) -> bool:
        return project_quota.are_enforced(self._paths.root)

    def _create_tree(self, parent: int, name: str) -> None:
        os.mkdir(name, 0o700, dir_fd=parent)

    def _copy_tree(self, source: int, parent: int, name: str, size: int | None) -> None:
        os.mkdir(name, 0o700, dir_fd=parent)
        with open_directory(name, dir_fd=parent) as tree:
            if size is not None:
                project_quota.begin(parent, (tree,), self._paths.root)
            copy_tree(source, tree)
            if size is not None:
                project_quota.limit(parent, size)

    def _is_limited(self, parent: int) -> bool:
        return project_quota.has_project(parent)

    def _clear_limits(self, parent: int) -> None:
        project_quota.end(parent)

    def _remove_tree(self, parent: int, name: str) -> None:
        remove_tree(parent, name.encode())
