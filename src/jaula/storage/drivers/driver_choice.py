"""The storage drivers by name, and the choice of one for this host."""

from __future__ import annotations

import os

from jaula.config import Paths
from jaula.errors import InvalidRequest, Unsupported
from jaula.storage.drivers.storage_driver import SnapshotDriver
from jaula.storage.layers.layer_store import LayerStore

DRIVERS = ("overlay", "btrfs", "vfs")
"""The drivers, in the order in which they are tried."""


def open_driver(
    name: str,
    paths: Paths,
    layers: LayerStore,
    *,
    rootless: bool = False,
    probed: bool = False,
    durable: bool = True,
) -> SnapshotDriver:
    """Import and return the named driver.

    ``rootless`` means that the engine runs in a user namespace whose ids all containers share, so
    mounts are not id-mapped. ``probed`` means that the driver is known to work in this root
    directory. A probe creates files, which a full file system refuses. With ``durable``, a merged
    tree is on the disk before it has its name.

    :raises InvalidRequest: when the driver does not exist.
    :raises Unsupported: when it does not work on this host.
    """
    if name in ("overlay", "overlay2"):  # Docker's name for it
        from jaula.storage.drivers.overlay import OverlayDriver

        return OverlayDriver(paths, layers, rootless=rootless, probed=probed)
    if name == "btrfs":
        from jaula.storage.drivers.btrfs_driver import BtrfsDriver

        return BtrfsDriver(paths, layers, rootless=rootless, probed=probed, durable=durable)
    if name == "vfs":
        from jaula.storage.drivers.vfs import VfsDriver

        return VfsDriver(paths, layers, rootless=rootless, probed=probed, durable=durable)
    raise InvalidRequest(
        f"storage driver {name!r} does not exist", hint=f"use one of {', '.join(DRIVERS)}"
    )


def select_driver(
    paths: Paths,
    name: str | None = None,
    layers: LayerStore | None = None,
    *,
    rootless: bool = False,
    probed: str | None = None,
    durable: bool = True,
) -> SnapshotDriver:
    """Return the driver ``name``, or the first that works on this kernel and file system.

    Without a name, a driver that has containers in the root directory is tried first. ``probed`` is
    the driver that is known to work in the root directory.

    :raises Unsupported: when the driver, or every driver, does not work on this host.
    """
    layers = layers or LayerStore(paths)
    if name is not None:
        return open_driver(
            name, paths, layers, rootless=rootless, probed=name == probed, durable=durable
        )
    problems = []
    for candidate in sorted(DRIVERS, key=lambda known: not has_trees(known, paths)):
        try:
            return open_driver(
                candidate,
                paths,
                layers,
                rootless=rootless,
                probed=candidate == probed,
                durable=durable,
            )
        except Unsupported as error:
            problems.append(error.message)
    raise Unsupported("no storage driver works on this host: " + "; ".join(problems))


def has_trees(name: str, paths: Paths) -> bool:
    """Return whether the driver has merged trees in the root directory (overlay has none)."""
    try:
        return bool(os.listdir(paths.root / name))
    except FileNotFoundError:
        return False
