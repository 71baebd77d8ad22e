"""The base of the vfs and btrfs drivers, whose snapshots are whole trees.

``<root>/<driver>/<chain>`` is the merged tree of a stack of layers. It is made once and then
copied. ``containers/<id>/rootfs`` is a container's copy, ``containers/<id>/chain`` names its merged
tree. ``new-staged`` has files that will replace ``rootfs``. The subclasses create, copy and remove
trees.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader

from jaula.config import Paths
from jaula.errors import (
    Conflict,
    CorruptState,
    InvalidRequest,
    NotFound,
    Unsupported,
    resource_error,
)
from jaula.kernel.syncfs import fsync_paths, sync_file_systems
from jaula.spec.rootfs import DirectoryRoot, RootSource
from jaula.storage.checkpoint_files import extract
from jaula.storage.drivers.storage_driver import Change, ChangeFilter
from jaula.storage.filesystem_type import filesystem_name
from jaula.storage.layer_diff import sorted_changes, tree_differences
from jaula.storage.layers.commit_layer import write_layer
from jaula.storage.layers.layer_store import LayerStore, root_directory_layer
from jaula.storage.tar.tar_writer import Sink
from jaula.storage.trees import (
    copy_metadata,
    copy_tree,
    open_directory,
    remove_entries,
    remove_tree,
    write_new,
)

INCOMPLETE = "new-"
_STAGED, _FORMER = f"{INCOMPLETE}staged", f"{INCOMPLETE}former"
_LAYER = f"{INCOMPLETE}layer".encode()
_VIEW_LIFETIME = 600.0  # seconds for which a viewed merged tree without a snapshot is kept


class FullCopyDriver(ABC):
    """A :class:`~jaula.storage.drivers.storage_driver.SnapshotDriver` without those on trees."""

    name: str
    instant = False

    def __init__(
        self,
        paths: Paths,
        layers: LayerStore,
        *,
        id_mapped: bool = True,
        durable: bool = True,
    ) -> None:
        self._paths = paths
        self._durable = durable
        self._layers = layers
        self._id_mapped = id_mapped
        self._merged = paths.root / self.name
        self._merged.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._views: dict[str, float] = {}

    @property
    def has_quotas(self) -> bool:
        return False  # btrfs: the first limit switches the quotas of the whole file system on

    # -- operations of the subclasses -----------------------------------------------------------

    @abstractmethod
    def _create_tree(self, parent: int, name: str) -> None:
        """Create an empty tree with mode 0700."""

    @abstractmethod
    def _copy_tree(self, source: int, parent: int, name: str, size: int | None) -> None:
        """Copy a tree. The copy may grow by ``size`` bytes.

        :raises Unsupported: when the size cannot be limited.
        """

    @abstractmethod
    def _remove_tree(self, parent: int, name: str) -> None:
        """Remove a tree if it exists."""

    @abstractmethod
    def _clear_limits(self, parent: int) -> None:
        """Clear the size limits in a container's directory before its trees are removed."""

    @abstractmethod
    def _is_limited(self, parent: int) -> bool:
        """Return whether the snapshot in a container's directory has a size limit."""

    def _seal(self, tree: int) -> None:  # noqa: B027 - optional
        """Make a complete merged tree immutable."""

    # -- SnapshotDriver -------------------------------------------------------------------------

    def create(self, id: str, layers: Sequence[str], *, size: int | None = None) -> None:
        top = self._paths.container(id)
        with self._lock:
            chain = self._merge(layers)
            if self.exists(id):
                raise Conflict(f"snapshot {id} exists already")
            try:
                top.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open_directory(top) as parent, open_directory(self._merged / chain) as source:
                    remove_tree(parent, b"chain")  # left by an interrupted create
                    write_new(parent, "chain", chain.encode())
                    self._copy_root(source, parent, size)
            except BaseException as error:
                remove_entries(top, ("chain",))
                raise (
                    resource_error(error, "cannot create a container's files") or error
                ) from error

    def _copy_root(self, source: int, parent: int, size: int | None) -> None:
        """Copy the merged tree ``source`` to ``rootfs``, or leave nothing of it."""
        temporary = f"{INCOMPLETE}{secrets.token_hex(8)}"
        try:
            self._copy_tree(source, parent, temporary, size)
            os.rename(temporary, "rootfs", src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            self._clear_limits(parent)
            self._remove_tree(parent, temporary)
            raise

    def sync(self, id: str) -> None:
        sync_file_systems(self._paths.container(id))

    def root(self, id: str) -> RootSource:
        self._chain(id)
        return DirectoryRoot(f"{self._paths.container(id)}/rootfs", id_mapped=self._id_mapped)

    def view(self, layers: Sequence[str]) -> RootSource:
        with self._lock:
            chain = self._merge(layers)
            self._views[chain] = time.monotonic()
            return DirectoryRoot(f"{self._merged}/{chain}", id_mapped=self._id_mapped)

    def remove(self, id: str) -> None:
        top = self._paths.container(id)
        try:
            with open_directory(top) as parent:
                self._clear_limits(parent)
                for name in os.listdir(parent):
                    if name == "rootfs" or name.startswith(INCOMPLETE):
                        self._remove_tree(parent, name)
        except FileNotFoundError:
            return
        remove_entries(top, ("chain",))
        self.sweep()

    def exists(self, id: str) -> bool:
        return (self._paths.container(id) / "rootfs").is_dir()

    def changes(self, id: str) -> list[Change]:
        with self._tree_and_base(id) as (tree, base):
            return sorted_changes(tree_differences(tree, base))

    def write_layer(
        self, id: str, select: ChangeFilter, sink: Sink, *, exact: bool = False
    ) -> bool:
        with self._tree_and_base(id) as (tree, base):
            differences = select(tree_differences(tree, base, mount_points=exact))
            write_layer(tree, differences, sink, exact=exact)
        return bool(differences)

    def stage(self, id: str, layer: BufferedReader) -> None:
        with (
            self._tree_and_base(id) as (_, base),
            open_directory(self._paths.container(id)) as parent,
        ):
            if self._is_limited(parent):
                raise Unsupported(
                    f"the files of a container with --storage-opt size= cannot be replaced on"
                    f" {self.name}",
                    hint="create it without that option, or use the overlay driver",
                )
            try:
                self._remove_tree(parent, _FORMER)
                self._remove_tree(parent, _STAGED)
                self._copy_tree(base, parent, _STAGED, None)
                remove_tree(parent, _LAYER)
                os.mkdir(_LAYER, 0o700, dir_fd=parent)
                with (
                    open_directory(os.fsdecode(_LAYER), dir_fd=parent) as changes,
                    open_directory(_STAGED, dir_fd=parent) as staged,
                ):
                    extract(layer, changes, layer=True)
                    copy_tree(changes, staged, whiteout=remove_tree)
            except BaseException:
                self._remove_tree(parent, _STAGED)
                raise
            finally:
                remove_tree(parent, _LAYER)

    def replace(self, id: str, *, keep: bool = False) -> None:
        with open_directory(self._paths.container(id)) as parent:
            if _STAGED in os.listdir(parent):
                if "rootfs" in os.listdir(parent):
                    self._remove_tree(parent, _FORMER)
                    os.rename("rootfs", _FORMER, src_dir_fd=parent, dst_dir_fd=parent)
                os.rename(_STAGED, "rootfs", src_dir_fd=parent, dst_dir_fd=parent)
                fsync_paths(".", dir_fd=parent)
            if not keep:
                self._remove_tree(parent, _FORMER)

    def put_back(self, id: str) -> None:
        with open_directory(self._paths.container(id)) as parent:
            if _FORMER in os.listdir(parent):
                if "rootfs" in os.listdir(parent):
                    os.rename("rootfs", _STAGED, src_dir_fd=parent, dst_dir_fd=parent)
                os.rename(_FORMER, "rootfs", src_dir_fd=parent, dst_dir_fd=parent)
                fsync_paths(".", dir_fd=parent)

    def discard(self, id: str) -> None:
        if self.exists(id):
            with open_directory(self._paths.container(id)) as parent:
                self._remove_tree(parent, _STAGED)
                self._remove_tree(parent, _FORMER)
                remove_tree(parent, _LAYER)

    def status(self) -> list[tuple[str, str]]:
        return [("Backing Filesystem", filesystem_name(self._paths.root))]

    # -- merged trees ---------------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        with self._lock:
            return [f"{self._merged}/{name}" for name in self._unused()]

    def sweep(self) -> None:
        with self._lock, open_directory(self._merged) as parent:
            for name in self._unused():
                self._remove_tree(parent, name)

    def _unused(self) -> list[str]:
        """Return the names of merged trees that no container uses, and of incomplete ones."""
        used = {path.read_text() for path in self._paths.root.glob("containers/*/chain")}
        used |= {chain_name(layers) for layers in self._layers.mounted_stacks()}
        now = time.monotonic()
        self._views = {c: at for c, at in self._views.items() if now - at < _VIEW_LIFETIME}
        return [n for n in os.listdir(self._merged) if n not in used and n not in self._views]

    def _merge(self, layers: Sequence[str]) -> str:
        """Make the merged tree of ``layers`` unless it exists. Return its name."""
        if not layers:
            raise InvalidRequest("an image without a layer has no root file system to run from")
        sources = [self._layers.path(layer) for layer in layers]
        chain = chain_name(layers)
        if (self._merged / chain).is_dir():
            return chain
        root_layer = self._layers.path(root_directory_layer(self._layers, tuple(layers)))
        temporary = f"{INCOMPLETE}{secrets.token_hex(8)}"
        with open_directory(self._merged) as parent:
            try:
                applied = self._create_base(parent, temporary, layers)
                with open_directory(temporary, dir_fd=parent) as tree:
                    for path in sources[applied:]:
                        with open_directory(path) as source:
                            copy_tree(source, tree, whiteout=remove_tree)
                    with open_directory(root_layer) as source:
                        copy_metadata(source, tree)
                    self._seal(tree)
                if self._durable:
                    sync_file_systems(self._merged)
                os.rename(temporary, chain, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException as error:
                self._remove_tree(parent, temporary)
                raise resource_error(error, "cannot merge an image's layers") or error from error
        return chain

    def _create_base(self, parent: int, name: str, layers: Sequence[str]) -> int:
        """Create the tree to apply layers to. Return how many of ``layers`` it has."""
        self._create_tree(parent, name)
        return 0

    def _chain(self, id: str) -> str:
        if not self.exists(id):
            raise NotFound(f"snapshot {id} does not exist")
        document = self._paths.container(id) / "chain"
        try:
            return document.read_text()
        except FileNotFoundError:
            raise CorruptState(f"snapshot {id} is damaged: {document} does not exist") from None

    @contextmanager
    def _tree_and_base(self, id: str) -> Iterator[tuple[int, int]]:
        """Yield descriptors of a container's tree and of the merged tree it was copied from."""
        try:
            chain = self._chain(id)
            with (
                open_directory(self._paths.container(id) / "rootfs") as tree,
                open_directory(self._merged / chain) as base,
            ):
                yield tree, base
        except (FileNotFoundError, CorruptState):
            if self.exists(id):
                raise
            raise NotFound(f"snapshot {id} does not exist") from None  # it was removed meanwhile


def chain_name(layers: Sequence[str]) -> str:
    """Return the name of the merged tree of a stack of layers."""
    return hashlib.sha256("\n".join(layers).encode()).hexdigest()
