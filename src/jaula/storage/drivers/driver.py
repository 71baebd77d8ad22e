"""Snapshots: layers stacked for one container, below a writable directory of its own.

The contract of a driver, held by one test suite that every driver passes:

* Layers are given by diff id, base first, and are unpacked already. A snapshot's id is the
  container's; what a driver keeps of it lies below ``config.Paths.container(id)``.
* Nothing is mounted on the host and nothing is chowned: ids on disk are the plain ones of the
  image, and the runtime maps them when it mounts the :class:`~jaula.spec.rootfs.RootSource`.
* The root directory of a new snapshot has the owner and mode that the image gives to '/'.
* ``create`` is cheap where the driver can be (it does not depend on the image's size with overlay),
  leaves nothing behind when it fails, and refuses an id that is there.
* ``remove`` of what is not there is no error, so it can be repeated after a crash.
* ``changes`` and ``usage`` may be asked while the container runs and writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Protocol

import msgspec

from jaula.kernel import mounts
from jaula.spec.rootfs import OverlayRoot, RootSource


class ChangeKind(IntEnum):
    """Docker's numbers (``GET /containers/{id}/changes``)."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class Change(msgspec.Struct, frozen=True, order=True):
    """A path of the container, absolute, that differs from the image."""

    path: str
    kind: ChangeKind


ChangeFilter = Callable[[dict[bytes, ChangeKind]], dict[bytes, ChangeKind]]
"""Leaves out differences that are not to be in a layer."""


class SnapshotDriver(Protocol):
    """See the module's text for the contract."""

    name: str
    instant: bool
    """Whether ``create`` takes a fraction of a millisecond, whatever the image."""

    def create(self, id: str, layers: Sequence[str], *, size: int | None = None) -> None:
        """``size``: bytes that the container may add to its layers.

        Raises ``Conflict`` where the snapshot exists, ``NotFound`` for an unknown layer,
        ``Unsupported`` where the kernel or the file system cannot limit it.
        """

    def root(self, id: str) -> RootSource:
        """How to mount a snapshot; raises ``NotFound``."""

    def view(self, layers: Sequence[str]) -> RootSource:
        """How to mount layers read-only, without a snapshot."""

    def remove(self, id: str) -> None: ...

    def exists(self, id: str) -> bool: ...

    def changes(self, id: str) -> list[Change]:
        """What differs from the layers, in order of path."""

    def write_layer(self, id: str, choose: ChangeFilter, sink: Callable[..., object]) -> bool:
        """Write what differs as the tar of a layer; whether there is anything in it.

        It may be asked while the container runs; only one that is paused gives one moment's files.
        """

    def usage(self, id: str) -> int:
        """Bytes that the snapshot holds beyond its layers."""

    def leftovers(self) -> list[str]:
        """Paths of what is of no snapshot and that :meth:`sweep` removes."""

    def sweep(self) -> None:
        """Remove what a crash left; called when nothing is being made."""

    def status(self) -> list[tuple[str, str]]:
        """Facts for ``docker info`` (DriverStatus)."""


@contextmanager
def open_root(source: RootSource) -> Iterator[int]:
    """A descriptor of a root file system's '/', from a mount that only this descriptor knows.

    Ids are seen as they are on disk. Where the source has an upper directory it is used writable,
    so this is for containers that do not run; overlayfs leaves two mounts of one upper undefined.
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
