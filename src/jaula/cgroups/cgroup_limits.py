"""Limits that the host's cgroups support, and the warning for each missing one.

The warnings are those of ``docker info``, which tools search for.
"""

from __future__ import annotations

from collections.abc import Collection

FEATURES: dict[str, str] = {
    "memory": "No memory limit support",
    "swap": "No swap limit support",
    "memory.reservation": "No memory reservation support",
    "oom.control": "No oom kill disable support",
    "cpu.shares": "No cpu shares support",
    "cpu.quota": "No cpu cfs quota support",
    "cpuset": "No cpuset support",
    "pids": "No pids limit support",
    "io.weight": "No blkio weight support",
    "io.throttle": "No blkio throttle support",
    "devices": "No device control support",
    "freezer": "No freezer support: containers cannot be paused",
}

_V2_SILENT = frozenset({"oom.control"})  # no kernel has it on v2: no warning


def warnings(features: Collection[str], version: int) -> tuple[str, ...]:
    """Return a warning for each missing feature."""
    silent = _V2_SILENT if version == 2 else frozenset()
    return tuple(
        f"WARNING: {line}"
        for name, line in FEATURES.items()
        if name not in features and name not in silent
    )
