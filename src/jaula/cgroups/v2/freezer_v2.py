"""Freezing on v2: ``cgroup.freeze``, and ``cgroup.events`` for completion.

Source: kernel ``admin-guide/cgroup-v2.rst`` "Core Interface Files".
"""

from __future__ import annotations

import os
import select
import time

from jaula.cgroups import cgroup_files
from jaula.errors import Unavailable

_POLL_INTERVAL = 0.05  # seconds; the event is edge-triggered, so a missed one costs this much


def freeze(directory: int, path: str, timeout: float) -> None:
    """Freeze every process.

    :raises Unavailable: when processes still run after ``timeout`` seconds; the cgroup is then
        thawed.
    """
    deadline = time.monotonic() + timeout
    events = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        cgroup_files.write(directory, "cgroup.freeze", "1")
        while not frozen(directory):
            if time.monotonic() > deadline:
                thaw(directory)
                raise Unavailable(f"cgroup {path} did not freeze within {timeout} seconds")
            os.pread(events, 4096, 0)  # arms the event
            if not frozen(directory):
                poll.poll(_POLL_INTERVAL * 1000)
    finally:
        os.close(events)


def begin(directory: int) -> None:
    """Freeze every process as soon as it runs."""
    cgroup_files.write(directory, "cgroup.freeze", "1")


def thaw(directory: int) -> None:
    """Thaw every process."""
    cgroup_files.write(directory, "cgroup.freeze", "0")


def frozen(directory: int) -> bool:
    """Return whether every process is frozen."""
    return cgroup_files.flat_keyed(cgroup_files.read(directory, "cgroup.events")).get("frozen") == 1
