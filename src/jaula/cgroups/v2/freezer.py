"""Freezing on v2: ``cgroup.freeze``, and ``cgroup.events`` for when it has come true.

Source: kernel ``admin-guide/cgroup-v2.rst`` "Core Interface Files".
"""

from __future__ import annotations

import os
import select
import time

from jaula.cgroups import files
from jaula.errors import Unavailable

_POLL = 0.05  # seconds; the event is an edge, so a missed one costs this much


def freeze(directory: int, path: str, timeout: float) -> None:
    """Stop every process; raises ``Unavailable`` (and thaws) when some run on for ``timeout`` s."""
    deadline = time.monotonic() + timeout
    events = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        files.write(directory, "cgroup.freeze", "1")
        while not frozen(directory):
            if time.monotonic() > deadline:
                thaw(directory)
                raise Unavailable(f"cgroup {path} did not freeze within {timeout} seconds")
            os.pread(events, 4096, 0)  # arms the event
            if not frozen(directory):
                poll.poll(_POLL * 1000)
    finally:
        os.close(events)


def thaw(directory: int) -> None:
    """Let every task go on."""
    files.write(directory, "cgroup.freeze", "0")


def frozen(directory: int) -> bool:
    """Whether every task has stopped."""
    return files.flat_keyed(files.read(directory, "cgroup.events")).get("frozen") == 1
