"""Cgroups: limits, figures, pause and removal of a container's processes, on v1 and v2.

:func:`detect` looks at the host and gives the driver; what it can do is in
:mod:`jaula.cgroups.protocol`. :func:`select` gives the one that a caller of ``jaula-runtime`` asks
for. Knows no containers, only paths and OCI resources.

Only the version that the host has is loaded, which is done by asking for a driver.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from jaula.cgroups import hierarchies
from jaula.cgroups.attach import enter
from jaula.cgroups.cgroup_path import own_cgroup
from jaula.cgroups.protocol import Cgroup, CgroupDriver, Stats
from jaula.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cgroups.v1.driver import V1Driver
    from jaula.cgroups.v2.driver import V2Driver

__all__ = [
    "ENGINE_LEAF",
    "Cgroup",
    "CgroupDriver",
    "Stats",
    "delegated",
    "delegated_base",
    "detect",
    "driver",
    "enter",
    "select",
    "unified_mount",
]

ENGINE_LEAF = "engine"
"""Where an ordinary user's engine itself is, in the cgroup that is delegated to it."""


def detect() -> CgroupDriver:
    """The driver for this host. Raises ``Unsupported`` where no cgroups are mounted."""
    return driver(_mounted())


def delegated(reason: str = "") -> CgroupDriver:
    """The driver of an ordinary user's engine: the subtree that it was given, or none at all.

    The engine is in the leaf :data:`ENGINE_LEAF` of a delegated cgroup of v2; containers are beside
    it. v1 knows no safe delegation. ``reason`` says why there is no such cgroup, if that is known.
    """
    from jaula.cgroups import null_driver
    from jaula.cgroups.v2.driver import V2Driver

    tree = unified_mount()
    if tree is not None:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            base = delegated_base(tree, own_cgroup(file.read()))
        if base is not None:
            return null_driver.NullDriver(V2Driver(f"{tree}{base}", rootless=True))
    hint = "jaula doctor tells how a user gets one"
    return null_driver.NullDriver(None, reason or "the engine has no delegated cgroup", hint)


def unified_mount() -> str | None:
    """Where the v2 tree is, if every controller is in it; None on hosts with v1."""
    found = _mounted()
    return found.unified if not found.legacy else None


def delegated_base(tree: str, own: str) -> str | None:
    """The cgroup above the leaf ``own``, if that is an engine's in a tree that we may write to."""
    base, _, leaf = own.rpartition("/")
    file = f"{tree}{base}/cgroup.subtree_control"
    if leaf == ENGINE_LEAF and os.access(file, os.W_OK, effective_ids=True):
        return base
    return None


def driver(found: hierarchies.Hierarchies) -> CgroupDriver:
    """v1 wherever it has a controller (hybrid hosts), else v2."""
    return _files(found, rootless=False, named=())


def select(
    *, systemd: bool, rootless: bool, annotations: Mapping[str, str] | None = None
) -> CgroupDriver:
    """The driver that an OCI runtime's flags ask for.

    ``annotations`` are the spec's: with systemd they may set properties of the unit. ``rootless``
    holds inside a user namespace too; there no device rules are made, and where no cgroup can be
    made, there is none. Raises ``Unsupported``, or ``InvalidRequest`` for bad annotations.
    """
    found = _mounted()
    if not systemd:
        if not rootless:  # as other runtimes do: an init system inside looks for its hierarchy
            return _files(found, rootless=False, named=(hierarchies.SYSTEMD,))
        from jaula.cgroups import null_driver as cgroup_null_driver

        mounted = bool(found.legacy) or found.unified is not None
        return cgroup_null_driver.NullDriver(
            _files(found, rootless=True, named=()) if mounted else None
        )
    from jaula.cgroups.systemd import annotations as texts  # 15 ms that only those pay who ask
    from jaula.cgroups.systemd.driver import SystemdDriver

    return SystemdDriver(
        _files(found, rootless=rootless, named=(hierarchies.SYSTEMD, "")),
        user=rootless,
        properties=texts.properties(annotations or {}),
        without_device_rules=rootless,
    )


def _mounted() -> hierarchies.Hierarchies:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        return hierarchies.parse(mountinfo.read())


def _files(
    found: hierarchies.Hierarchies, *, rootless: bool, named: tuple[str, ...]
) -> V1Driver | V2Driver:
    if found.legacy:
        mounts = {hierarchies.SYSTEMD: found.named, "": found.unified}
        extra = [(name, mount) for name in named if (mount := mounts[name])]
        from jaula.cgroups.v1.driver import V1Driver

        return V1Driver(found.legacy, extra)
    if found.unified is not None:
        from jaula.cgroups.v2.driver import V2Driver

        return V2Driver(found.unified, rootless=rootless)
    raise Unsupported(
        "no cgroup hierarchy is mounted", hint="mount cgroup2 on /sys/fs/cgroup and try again"
    )
