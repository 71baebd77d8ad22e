"""The vfs driver: a whole copy for each container, for hosts where overlay does not work.

``<root>/vfs/<chain>`` holds the merged tree of a stack of layers, made once and shared as the
source of copies; ``containers/<id>/rootfs`` is a container's copy. File systems with reflinks
(btrfs, xfs) share the data all the same.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Sequence

from jaula.config import Paths
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.spec.rootfs import DirectoryRoot, RootSource
from jaula.storage.changes import tree_changes
from jaula.storage.filesystems import filesystem_name
from jaula.storage.layers import LayerStore, root_stated_by
from jaula.storage.snapshots import Change
from jaula.storage.trees import copy_facts, copy_tree, remove_tree, size_on_disk

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HALF_MADE = "new-"


class VfsDriver:
    """A :class:`~jaula.storage.snapshots.SnapshotDriver`."""

    name = "vfs"

    def __init__(self, paths: Paths, layers: LayerStore) -> None:
        self._paths = paths
        self._layers = layers
        self._merged = paths.root / "vfs"
        self._merged.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self, id: str, layers: Sequence[str]) -> None:
        chain = self._merge(layers)
        top = self._paths.container(id)
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        parent = os.open(top, _FOLDER)
        try:
            if self.exists(id):
                raise Conflict(f"snapshot {id} exists already")
            (top / "chain").write_text(chain)
            try:
                self._copy(chain, parent, "rootfs")
            except BaseException:
                remove_tree(parent, b"chain")
                raise
        finally:
            os.close(parent)

    def root(self, id: str) -> RootSource:
        self._chain(id)
        return DirectoryRoot(f"{self._paths.container(id)}/rootfs")

    def view(self, layers: Sequence[str]) -> RootSource:
        return DirectoryRoot(f"{self._merged}/{self._merge(layers)}")

    def remove(self, id: str) -> None:
        top = self._paths.container(id)
        try:
            parent = os.open(top, _FOLDER)
        except FileNotFoundError:
            return
        try:
            for part in (b"rootfs", b"chain"):
                remove_tree(parent, part)
        finally:
            os.close(parent)
        self._forget_unused()
        try:
            top.rmdir()
        except OSError:
            return  # the directory holds more than the snapshot; it is its owner's to remove

    def exists(self, id: str) -> bool:
        return (self._paths.container(id) / "rootfs").is_dir()

    def changes(self, id: str) -> list[Change]:
        chain = self._chain(id)
        tree = os.open(self._paths.container(id) / "rootfs", _FOLDER)
        try:
            below = os.open(self._merged / chain, _FOLDER)
            try:
                return tree_changes(tree, below)
            finally:
                os.close(below)
        finally:
            os.close(tree)

    def usage(self, id: str) -> int:
        self._chain(id)
        tree = os.open(self._paths.container(id) / "rootfs", _FOLDER)
        try:
            return size_on_disk(tree)
        finally:
            os.close(tree)

    def status(self) -> list[tuple[str, str]]:
        return [("Backing Filesystem", filesystem_name(self._paths.root))]

    def _chain(self, id: str) -> str:
        try:
            return (self._paths.container(id) / "chain").read_text()
        except FileNotFoundError:
            raise NotFound(f"snapshot {id} does not exist") from None

    def _merge(self, layers: Sequence[str]) -> str:
        """Make the merged tree of ``layers`` where it is not there yet; its name."""
        if not layers:
            raise InvalidRequest("an image without a layer has no root file system to run from")
        chain = hashlib.sha256("\n".join(layers).encode()).hexdigest()
        if (self._merged / chain).is_dir():
            return chain
        sources = [self._layers.path(layer) for layer in layers]
        stated = self._layers.path(root_stated_by(self._layers, tuple(layers)))
        half = f"{_HALF_MADE}{secrets.token_hex(8)}"
        parent = os.open(self._merged, _FOLDER)
        try:
            os.mkdir(half, 0o700, dir_fd=parent)
            tree = os.open(half, _FOLDER, dir_fd=parent)
            try:
                for path in sources:
                    _with_folder(path, lambda source: copy_tree(source, tree, whiteout=remove_tree))
                _with_folder(stated, lambda source: copy_facts(source, tree))
            finally:
                os.close(tree)
            os.rename(half, chain, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            remove_tree(parent, half.encode())
            os.close(parent)
        return chain

    def _copy(self, chain: str, parent: int, name: str) -> None:
        half = f"{_HALF_MADE}{secrets.token_hex(8)}"
        os.mkdir(half, 0o700, dir_fd=parent)
        try:
            tree = os.open(half, _FOLDER, dir_fd=parent)
            try:
                _with_folder(f"{self._merged}/{chain}", lambda source: copy_tree(source, tree))
            finally:
                os.close(tree)
            os.rename(half, name, src_dir_fd=parent, dst_dir_fd=parent)
        finally:
            remove_tree(parent, half.encode())

    def _forget_unused(self) -> None:
        """Merged trees that no container was copied from, and what a crash left half-made."""
        used = {path.read_text() for path in self._paths.root.glob("containers/*/chain")}
        parent = os.open(self._merged, _FOLDER)
        try:
            for name in os.listdir(parent):
                if name not in used:
                    remove_tree(parent, name.encode())
        finally:
            os.close(parent)


def _with_folder(path: str, action: Callable[[int], None]) -> None:
    descriptor = os.open(path, _FOLDER)
    try:
        action(descriptor)
    finally:
        os.close(descriptor)
