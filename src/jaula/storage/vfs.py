"""The vfs driver: a whole copy for each container, for hosts where overlay does not work.

``<root>/vfs/<chain>`` holds the merged tree of a stack of layers, made once and shared as the
source of copies; ``containers/<id>/rootfs`` is a container's copy. File systems with reflinks
(btrfs, xfs) share the data all the same.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jaula.config import Paths
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.spec.rootfs import DirectoryRoot, RootSource
from jaula.storage.changes import listed, tree_differences
from jaula.storage.filesystems import filesystem_name
from jaula.storage.folders import opened, remove_parts
from jaula.storage.layer_tar import write_layer
from jaula.storage.layers import LayerStore, root_stated_by
from jaula.storage.snapshots import Change, Choice
from jaula.storage.tar_writer import Sink
from jaula.storage.trees import copy_facts, copy_tree, remove_tree, size_on_disk

_HALF_MADE = "new-"


class VfsDriver:
    """A :class:`~jaula.storage.snapshots.SnapshotDriver`."""

    name = "vfs"

    def __init__(self, paths: Paths, layers: LayerStore, *, rootless: bool = False) -> None:
        self._paths = paths
        self._id_mapped = not rootless
        self._layers = layers
        self._merged = paths.root / "vfs"
        self._merged.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self, id: str, layers: Sequence[str]) -> None:
        chain = self._merge(layers)
        top = self._paths.container(id)
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        with opened(top) as parent:
            if self.exists(id):
                raise Conflict(f"snapshot {id} exists already")
            (top / "chain").write_text(chain)
            try:
                with (
                    _whole_or_none(parent, "rootfs") as tree,
                    opened(self._merged / chain) as source,
                ):
                    copy_tree(source, tree)
            except BaseException:
                remove_tree(parent, b"chain")
                raise

    def root(self, id: str) -> RootSource:
        self._chain(id)
        return DirectoryRoot(f"{self._paths.container(id)}/rootfs", id_mapped=self._id_mapped)

    def view(self, layers: Sequence[str]) -> RootSource:
        return DirectoryRoot(f"{self._merged}/{self._merge(layers)}", id_mapped=self._id_mapped)

    def remove(self, id: str) -> None:
        if remove_parts(self._paths.container(id), ("rootfs", "chain")):
            self._forget_unused()

    def exists(self, id: str) -> bool:
        return (self._paths.container(id) / "rootfs").is_dir()

    def changes(self, id: str) -> list[Change]:
        chain = self._chain(id)
        with (
            opened(self._paths.container(id) / "rootfs") as tree,
            opened(self._merged / chain) as below,
        ):
            return listed(tree_differences(tree, below))

    def write_layer(self, id: str, choose: Choice, sink: Sink) -> bool:
        chain = self._chain(id)
        with (
            opened(self._paths.container(id) / "rootfs") as tree,
            opened(self._merged / chain) as below,
        ):
            found = choose(tree_differences(tree, below))
            write_layer(tree, found, sink)
        return bool(found)

    def usage(self, id: str) -> int:
        self._chain(id)
        with opened(self._paths.container(id) / "rootfs") as tree:
            return size_on_disk(tree)

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
        with opened(self._merged) as parent, _whole_or_none(parent, chain) as tree:
            for path in sources:
                with opened(path) as source:
                    copy_tree(source, tree, whiteout=remove_tree)
            with opened(stated) as source:
                copy_facts(source, tree)
        return chain

    def _forget_unused(self) -> None:
        """Merged trees that no container was copied from, and what a crash left half-made."""
        used = {path.read_text() for path in self._paths.root.glob("containers/*/chain")}
        with opened(self._merged) as parent:
            for name in os.listdir(parent):
                if name not in used:
                    remove_tree(parent, name.encode())


@contextmanager
def _whole_or_none(parent: int, name: str) -> Iterator[int]:
    """A new directory to fill, which gets its name when that went well and is removed when not."""
    half = f"{_HALF_MADE}{secrets.token_hex(8)}"
    os.mkdir(half, 0o700, dir_fd=parent)
    try:
        with opened(half, dir_fd=parent) as tree:
            yield tree
        os.rename(half, name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        remove_tree(parent, half.encode())
