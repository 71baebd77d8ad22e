"""The interface of storage drivers. A snapshot is a stack of layers with a writable directory.

Every driver passes one test suite for this contract:

* Layers are named by diff id, base first, and are unpacked before. The id of a snapshot is the
  container's. A driver stores it below ``config.Paths.container(id)``.
* A driver mounts nothing on the host and changes no owner: ids on disk are those of the image. The
  runtime maps them when it mounts the :class:`~jaula.spec.rootfs.RootSource`.
* The root directory of a new snapshot has the owner and mode that the image sets for '/'.
* ``create`` is cheap if the driver can do it (with overlay it does not depend on the image's size).
  It leaves nothing behind when it fails, and refuses an existing id.
* ``remove`` accepts an id that does not exist, so it can be repeated after a crash.
* ``changes`` and ``usage`` may be called while the container runs and writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from io import BufferedReader
from typing import NamedTuple, Protocol

import msgspec

from jaula.kernel import mounts
from jaula.spec.rootfs import OverlayRoot, RootSource


class ChangeKind(IntEnum):
    """The kind of a change, in Docker's numbers (``GET /containers/{id}/changes``)."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class Change(msgspec.Struct, frozen=True, order=True):
    """An absolute path of the container that differs from the image."""

    path: str
    kind: ChangeKind


class SnapshotUsage(NamedTuple):
    """The bytes of the regular files of a snapshot, and its inodes. Each inode counts once."""

    size: int
    inodes: int


ChangeFilter = Callable[[dict[bytes, ChangeKind]], dict[bytes, ChangeKind]]
"""Returns the differences that belong in a layer."""


class SnapshotDriver(Protocol):
    """A storage driver. The module's docstring has the contract."""

    name: str
    instant: bool
    """Whether ``create`` takes a fraction of a millisecond for any image."""

    @property
    def has_quotas(self) -> bool:
        """Whether a limit of one container needs no change of the file system."""
        ...

    def create(self, id: str, layers: Sequence[str], *, size: int | None = None) -> None:
        """Create a snapshot. ``size`` limits the bytes that the container may write.

        :raises Conflict: when the snapshot exists.
        :raises NotFound: when a layer does not exist.
        :raises Unsupported: when the kernel or the file system cannot limit the size.
        """

    def sync(self, id: str) -> None:
        """Write a new snapshot to the disk."""

    def root(self, id: str) -> RootSource:
        """Return how to mount a snapshot.

        :raises NotFound: when it does not exist.
        """

    def view(self, layers: Sequence[str]) -> RootSource:
        """Return how to mount layers read-only, without a snapshot."""

    def remove(self, id: str) -> None: ...

    def exists(self, id: str) -> bool: ...

    def changes(self, id: str) -> list[Change]:
        """Return the differences from the layers, sorted by path."""

    def write_layer(
        self, id: str, select: ChangeFilter, sink: Callable[..., object], *, exact: bool = False
    ) -> bool:
        """Write the selected differences as the tar of a layer. Return whether there are any.

        The container may run. Only a paused container gives a consistent layer. With ``exact`` the
        tar has an entry for the root directory, times in nanoseconds, ACLs, and the mount points
        that a start has created.
        """

    def stage(self, id: str, layer: BufferedReader) -> None:
        """Prepare other files for a snapshot: its layers, changed by the tar of a layer.

        The snapshot is not changed, and the container may run. The caller writes them to the disk
        (syncfs(2)) before it calls :meth:`replace`.

        :raises InvalidRequest: when the tar is not valid.
        :raises Unsupported: when the files of a snapshot with a size limit cannot be replaced.
        """

    def replace(self, id: str, *, keep: bool = False) -> None:
        """Put the staged files in the place of the snapshot's. Without staged files do nothing.

        With ``keep`` the former files stay beside them until :meth:`discard`. The container must
        not run. An interrupted call is completed by another one.
        """

    def put_back(self, id: str) -> None:
        """Put the files that :meth:`replace` has kept in place again; the others are staged then.

        Without kept files do nothing. The container must not run. An interrupted call is completed
        by another one.
        """

    def discard(self, id: str) -> None:
        """Remove staged and kept files, if there are any."""

    def usage(self, id: str) -> SnapshotUsage:
        """Return the bytes and inodes that the snapshot has beyond its layers.

        :raises NotFound: when it does not exist, or is removed meanwhile.
        """

    def leftovers(self) -> list[str]:
        """Return the paths that belong to no snapshot and that :meth:`sweep` removes."""

    def sweep(self) -> None:
        """Remove what a crash left. No snapshot may be in creation."""

    def status(self) -> list[tuple[str, str]]:
        """Return the rows of DriverStatus in ``docker info``."""


@contextmanager
def open_root(source: RootSource) -> Iterator[int]:
    """Yield a descriptor of the '/' of a root file system, in a detached mount.

    Ids are those on disk. An upper directory is mounted writable, so the container must not be
    running: overlayfs does not define two mounts of one upper directory.
    """
    if isinstance(source, OverlayRoot):
        mount = mounts.overlay(source.lowers, source.upper, source.work, options=source.options)
    else:
        mount = mounts.clone_tree(source.path)
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        try:
            yield root
        finally:
            os.close(root)
    finally:
        os.close(mount)
