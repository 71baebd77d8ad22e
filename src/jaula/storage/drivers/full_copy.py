"""Snapshots that are whole trees: what the vfs and the btrfs driver have in common.

``<root>/<driver>/<chain>`` holds the merged tree of a stack of layers, made once and the source of
copies; ``containers/<id>/rootfs`` is a container's copy, ``chain`` beside it says of what. How a
tree is made, copied and removed is each driver's own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jaula.config import Paths
from jaula.errors import Conflict, CorruptState, InvalidRequest, NotFound, Unavailable
from jaula.spec.rootfs import DirectoryRoot, RootSource
from jaula.storage.diff import sorted_changes, tree_differences
from jaula.storage.drivers.driver import Change, ChangeFilter
from jaula.storage.filesystem_type import filesystem_name
from jaula.storage.layers.commit_layer import write_layer
from jaula.storage.layers.store import LayerStore, root_directory_layer
from jaula.storage.tar.writer import Sink
from jaula.storage.trees import (
    copy_metadata,
    copy_tree,
    open_directory,
    remove_entries,
    remove_tree,
    write_new,
)

HALF_MADE = "new-"
_VIEWED = 600.0  # seconds for which a tree that was asked for without a snapshot is kept


class FullCopyDriver(ABC):
    """The part of a :class:`~jaula.storage.drivers.driver.SnapshotDriver` that does not differ."""

    name: str
    instant = False

    def __init__(self, paths: Paths, layers: LayerStore, *, id_mapped: bool = True) -> None:
        self._paths = paths
        self._layers = layers
        self._id_mapped = id_mapped
        self._merged = paths.root / self.name
        self._merged.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._viewed: dict[str, float] = {}

    # -- what a driver does in its own way ------------------------------------------------------

    @abstractmethod
    def _make(self, parent: int, name: str) -> None:
        """An empty tree, of mode 0700."""

    @abstractmethod
    def _copy(self, source: int, parent: int, name: str, size: int | None) -> None:
        """A copy of a tree, which may grow by ``size`` bytes; raises ``Unsupported``."""

    @abstractmethod
    def _remove(self, parent: int, name: str) -> None:
        """Remove a tree; none there is no error."""

    @abstractmethod
    def _unlimited(self, parent: int) -> None:
        """Forget the limits of the trees in a container's directory, before they are removed."""

    def _finished(self, tree: int) -> None:  # noqa: B027 - a merged tree may stay as it is
        """A merged tree is complete and is not to change any more."""

    # -- the contract ---------------------------------------------------------------------------

    def create(self, id: str, layers: Sequence[str], *, size: int | None = None) -> None:
        top = self._paths.container(id)
        with self._lock:
            chain = self._merge(layers)
            top.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open_directory(top) as parent, open_directory(self._merged / chain) as source:
                if self.exists(id):
                    raise Conflict(f"snapshot {id} exists already")
                remove_tree(parent, b"chain")  # of a creation that was cut off
                write_new(parent, "chain", chain.encode())
                half = f"{HALF_MADE}{secrets.token_hex(8)}"
                try:
                    self._copy(source, parent, half, size)
                    os.rename(half, "rootfs", src_dir_fd=parent, dst_dir_fd=parent)
                except BaseException as error:
                    self._unlimited(parent)
                    self._remove(parent, half)
                    remove_tree(parent, b"chain")
                    raise disk_full_error(error, "make a container's files") from error

    def root(self, id: str) -> RootSource:
        self._chain(id)
        return DirectoryRoot(f"{self._paths.container(id)}/rootfs", id_mapped=self._id_mapped)

    def view(self, layers: Sequence[str]) -> RootSource:
        with self._lock:
            chain = self._merge(layers)
            self._viewed[chain] = time.monotonic()
            return DirectoryRoot(f"{self._merged}/{chain}", id_mapped=self._id_mapped)

    def remove(self, id: str) -> None:
        top = self._paths.container(id)
        try:
            with open_directory(top) as parent:
                self._unlimited(parent)
                for name in os.listdir(parent):
                    if name == "rootfs" or name.startswith(HALF_MADE):
                        self._remove(parent, name)
        except FileNotFoundError:
            return
        remove_entries(top, ("chain",))
        self.sweep()

    def exists(self, id: str) -> bool:
        return (self._paths.container(id) / "rootfs").is_dir()

    def changes(self, id: str) -> list[Change]:
        with self._pair(id) as (tree, below):
            return sorted_changes(tree_differences(tree, below))

    def write_layer(self, id: str, choose: ChangeFilter, sink: Sink) -> bool:
        with self._pair(id) as (tree, below):
            found = choose(tree_differences(tree, below))
            write_layer(tree, found, sink)
        return bool(found)

    def status(self) -> list[tuple[str, str]]:
        return [("Backing Filesystem", filesystem_name(self._paths.root))]

    # -- merged trees ---------------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        with self._lock:
            return [f"{self._merged}/{name}" for name in self._unused()]

    def sweep(self) -> None:
        with self._lock, open_directory(self._merged) as parent:
            for name in self._unused():
                self._remove(parent, name)

    def _unused(self) -> list[str]:
        """Merged trees that no container was copied from, and what was half-made."""
        used = {path.read_text() for path in self._paths.root.glob("containers/*/chain")}
        now = time.monotonic()
        self._viewed = {c: at for c, at in self._viewed.items() if now - at < _VIEWED}
        return [n for n in os.listdir(self._merged) if n not in used and n not in self._viewed]

    def _merge(self, layers: Sequence[str]) -> str:
        """Make the merged tree of ``layers`` where it is not there yet; its name."""
        if not layers:
            raise InvalidRequest("an image without a layer has no root file system to run from")
        sources = [self._layers.path(layer) for layer in layers]
        chain = chain_name(layers)
        if (self._merged / chain).is_dir():
            return chain
        stated = self._layers.path(root_directory_layer(self._layers, tuple(layers)))
        half = f"{HALF_MADE}{secrets.token_hex(8)}"
        with open_directory(self._merged) as parent:
            try:
                done = self._begin(parent, half, layers)
                with open_directory(half, dir_fd=parent) as tree:
                    for path in sources[done:]:
                        with open_directory(path) as source:
                            copy_tree(source, tree, whiteout=remove_tree)
                    with open_directory(stated) as source:
                        copy_metadata(source, tree)
                    self._finished(tree)
                os.rename(half, chain, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException as error:
                self._remove(parent, half)
                raise disk_full_error(error, "merge an image's layers") from error
        return chain

    def _begin(self, parent: int, name: str, layers: Sequence[str]) -> int:
        """Make the tree to lay layers over; how many of them it holds already."""
        self._make(parent, name)
        return 0

    def _chain(self, id: str) -> str:
        if not self.exists(id):
            raise NotFound(f"snapshot {id} does not exist")
        document = self._paths.container(id) / "chain"
        try:
            return document.read_text()
        except FileNotFoundError:
            raise CorruptState(f"snapshot {id} is damaged: there is no {document}") from None

    @contextmanager
    def _pair(self, id: str) -> Iterator[tuple[int, int]]:
        """Descriptors of a container's tree, and of the merged tree that it was copied from."""
        chain = self._chain(id)
        with (
            open_directory(self._paths.container(id) / "rootfs") as tree,
            open_directory(self._merged / chain) as below,
        ):
            yield tree, below


def chain_name(layers: Sequence[str]) -> str:
    """The name of a stack of layers."""
    return hashlib.sha256("\n".join(layers).encode()).hexdigest()


def disk_full_error(error: BaseException, what: str) -> BaseException:
    """A full disk as an error for a client; anything else as it is."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"cannot {what}: {error.strerror}", hint="free some space and try again")
    return error
