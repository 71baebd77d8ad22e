"""Which limits a host's cgroups can keep, and the line that says one is missing.

The names of the lines follow ``docker info``, which tools look for.
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

_V2_SILENT = frozenset({"oom.control"})  # v2 has no such knob on any kernel: not worth a line


def warnings(features: Collection[str], version: int) -> tuple[str, ...]:
    """A line for each feature that is missing."""
    silent = _V2_SILENT if version == 2 else frozenset()
    return tuple(
        f"WARNING: {line}"
        for name, line in FEATURES.items()
        if name not in features and name not in silent
    )
