"""Cgroups v1 and v2: limits, statistics, freezing and removal of a container's processes.

:func:`detect` returns the driver for the host; :mod:`jaula.cgroups.cgroup_driver` describes its
interface. :func:`select` returns the driver that a caller of ``jaula-runtime`` requests. The
package knows paths and OCI resources, not containers.

Only the version of the host is imported, at the request for a driver.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from jaula.cgroups import hierarchies
from jaula.cgroups.cgroup_attach import enter
from jaula.cgroups.cgroup_driver import Cgroup, CgroupDriver, Stats
from jaula.cgroups.cgroup_path import own_cgroup
from jaula.errors import Unsupported
from jaula.kernel import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cgroups.v1.driver_v1 import V1Driver
    from jaula.cgroups.v2.driver_v2 import V2Driver

__all__ = [
    "ENGINE_LEAF",
    "Cgroup",
    "CgroupDriver",
    "Stats",
    "absent",
    "delegated",
    "delegated_base",
    "delegated_directory",
    "detect",
    "driver",
    "enter",
    "has_systemd",
    "select",
    "unified_mount",
]

ENGINE_LEAF = "engine"
"""The leaf cgroup of a rootless engine, in the cgroup that is delegated to it."""


def detect(*, systemd: bool = False) -> CgroupDriver:
    """Return the driver for this host; with ``systemd`` scopes are created by systemd.

    :raises Unsupported: when no cgroup hierarchy is mounted.
    """
    mounts = _hierarchies()
    if not systemd:
        return driver(mounts)
    from jaula.cgroups.systemd.engine_driver import EngineDriver  # costs 15 ms

    return EngineDriver(_cgroupfs_driver(mounts, rootless=False, named=()))


def has_systemd() -> bool:
    """Return whether systemd manages the cgroups of this host, and these are v2.

    Source: sd_booted(3).
    """
    return unified_mount() is not None and os.path.isdir("/run/systemd/system")


def delegated(reason: str = "") -> CgroupDriver:
    """Return the driver of a rootless engine: its delegated subtree, or a driver without cgroups.

    The engine is in the leaf :data:`ENGINE_LEAF` of a delegated v2 cgroup, and its containers are
    next to that leaf. v1 has no safe delegation. ``reason`` says why there is no delegated cgroup,
    if known.
    """
    from jaula.cgroups import null_driver
    from jaula.cgroups.v2.driver_v2 import V2Driver

    tree = delegated_directory()
    if tree:
        return null_driver.NullDriver(V2Driver(tree, rootless=True))
    hint = "jaula doctor shows how a user gets one"
    return null_driver.NullDriver(None, reason or "the engine has no delegated cgroup", hint)


def delegated_directory() -> str:
    """Return the directory of the cgroup that is delegated to this rootless engine, or ''."""
    tree = unified_mount()
    if tree is None:
        return ""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        base = delegated_base(tree, own_cgroup(file.read()))
    return "" if base is None else f"{tree}{base}"


def unified_mount() -> str | None:
    """Return the mount point of the v2 hierarchy, or None on hosts with v1 controllers."""
    mounts = _hierarchies()
    return mounts.unified if not mounts.legacy else None


def delegated_base(tree: str, own: str) -> str | None:
    """Return the parent of ``own`` if that is an engine's leaf in a writable tree, else None."""
    base, _, leaf = own.rpartition("/")
    file = f"{tree}{base}/cgroup.subtree_control"
    if leaf == ENGINE_LEAF and os.access(file, os.W_OK, effective_ids=True):
        return base
    return None


def driver(mounts: hierarchies.Hierarchies) -> CgroupDriver:
    """Return the v1 driver if v1 has a controller (hybrid hosts), else the v2 driver."""
    return _cgroupfs_driver(mounts, rootless=False, named=())


def select(
    *, systemd: bool, rootless: bool, annotations: Mapping[str, str] | None = None
) -> CgroupDriver:
    """Return the driver that the flags of an OCI runtime select.

    ``annotations`` are the spec's: with systemd they may set properties of the unit. ``rootless``
    also applies inside a user namespace. A rootless driver sets no device rules, and where no
    cgroup can be created it runs the container without one.

    :raises Unsupported: when the host does not support the selected driver.
    :raises InvalidRequest: when an annotation is not valid.
    """
    mounts = _hierarchies()
    if not systemd:
        if not rootless:  # as other runtimes do: an init system inside needs its hierarchy
            return _cgroupfs_driver(mounts, rootless=False, named=(hierarchies.SYSTEMD, ""))
        from jaula.cgroups import null_driver

        mounted = bool(mounts.legacy) or mounts.unified is not None
        return null_driver.NullDriver(
            _cgroupfs_driver(mounts, rootless=True, named=()) if mounted else None
        )
    from jaula.cgroups.systemd import unit_annotations  # costs 15 ms
    from jaula.cgroups.systemd.systemd_driver import SystemdDriver

    return SystemdDriver(
        _cgroupfs_driver(mounts, rootless=rootless, named=(hierarchies.SYSTEMD, "")),
        user=rootless,
        properties=unit_annotations.properties(annotations or {}),
        without_device_rules=rootless,
    )


def _hierarchies() -> hierarchies.Hierarchies:
    return hierarchies.find(mountinfo.read())


def _cgroupfs_driver(
    mounts: hierarchies.Hierarchies, *, rootless: bool, named: tuple[str, ...]
) -> V1Driver | V2Driver:
    if mounts.legacy:
        mount_points = {hierarchies.SYSTEMD: mounts.named, "": mounts.unified}
        extra = [(name, mount) for name in named if (mount := mount_points[name])]
        from jaula.cgroups.v1.driver_v1 import V1Driver

        return V1Driver(mounts.legacy, extra)
    if mounts.unified is not None:
        from jaula.cgroups.v2.driver_v2 import V2Driver

        return V2Driver(mounts.unified, rootless=rootless)
    raise Unsupported(
        "no cgroup hierarchy is mounted", hint="mount cgroup2 on /sys/fs/cgroup and try again"
    )


def absent(path: str) -> Cgroup:
    """Return the cgroup of a container that has none: it has no processes and no limits."""
    from jaula.cgroups.null_driver import NullCgroup

    return NullCgroup(path)
