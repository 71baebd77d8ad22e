"""The storage drivers by name, and the choice of one for this host."""

from __future__ import annotations

import os

from jaula.config import Paths
from jaula.errors import InvalidRequest, Unsupported
from jaula.storage.drivers.driver import SnapshotDriver
from jaula.storage.layers.store import LayerStore

DRIVERS = ("overlay", "btrfs", "vfs")
"""In the order in which they are tried."""


def open_driver(
    name: str, paths: Paths, layers: LayerStore, *, rootless: bool = False
) -> SnapshotDriver:
    """The named driver, loaded now. Raises ``Unsupported`` where it cannot work here.

    ``rootless`` says that we are in a user namespace, whose ids are those of every container: then
    nothing is id-mapped.
    """
    if name in ("overlay", "overlay2"):  # Docker's name for it
        from jaula.storage.drivers.overlay import OverlayDriver

        return OverlayDriver(paths, layers, rootless=rootless)
    if name == "btrfs":
        from jaula.storage.drivers.btrfs import BtrfsDriver

        return BtrfsDriver(paths, layers, rootless=rootless)
    if name == "vfs":
        from jaula.storage.drivers.vfs import VfsDriver

        return VfsDriver(paths, layers, rootless=rootless)
    raise InvalidRequest(
        f"storage driver {name!r} does not exist", hint=f"there are {', '.join(DRIVERS)}"
    )


def select_driver(
    paths: Paths,
    name: str | None = None,
    layers: LayerStore | None = None,
    *,
    rootless: bool = False,
) -> SnapshotDriver:
    """The driver called ``name``, or the first that works on this kernel and file system.

    One that has containers here already comes first.
    """
    layers = layers or LayerStore(paths)
    if name is not None:
        return open_driver(name, paths, layers, rootless=rootless)
    reasons = []
    for candidate in sorted(DRIVERS, key=lambda known: not has_trees(known, paths)):
        try:
            return open_driver(candidate, paths, layers, rootless=rootless)
        except Unsupported as error:
            reasons.append(error.message)
    raise Unsupported("no storage driver works here: " + "; ".join(reasons))


def has_trees(name: str, paths: Paths) -> bool:
    """Whether a driver that keeps trees of its own (not overlay) has any in this root directory."""
    try:
        return bool(os.listdir(paths.root / name))
    except FileNotFoundError:
        return False
