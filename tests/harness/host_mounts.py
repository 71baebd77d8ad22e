"""The mounts of this mount namespace, which the processes that run tests in parallel share."""

from __future__ import annotations

from pathlib import Path

from jaula.kernel import mountinfo
from jaula.kernel.mountinfo import MountInfo

PRIVATE = ("/tmp/", "/var/tmp/", "/run/jlt")
"""Prefixes of the private directories of tests and of their engines."""


def host_mounts(*own: Path) -> list[MountInfo]:
    """Return the mounts of the host, without those in private directories of other tests.

    ``own`` are the private directories of the test that asks.
    """
    prefixes = tuple(f"{directory}/" for directory in own)
    return [
        mount
        for mount in mountinfo.read()
        if not mount.target.startswith(PRIVATE) or f"{mount.target}/".startswith(prefixes)
    ]
