"""SIGKILL to every process of a cgroup, where the kernel has no file that does it.

Frozen first, so that no process forks away while the list is worked through. Without a freezer, or
where it does not settle, the list is read again until it is empty.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from jaula.errors import Conflict

_TIMEOUT = 5.0  # seconds


def kill(
    path: str, pids: Callable[[], set[int]], stop: Callable[[], bool], go: Callable[[], None]
) -> None:
    """``stop`` says whether every process has stopped; ``go`` lets them run, so that they die.

    Raises ``Conflict`` where processes stay for five seconds.
    """
    deadline = time.monotonic() + _TIMEOUT
    while pids():
        stopped = stop()
        found = pids()
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended meanwhile, which is what is wanted
        go()
        if stopped or not found:
            return
        if time.monotonic() > deadline:
            raise Conflict(f"cgroup {path} still has processes {sorted(found)[:8]}")
        time.sleep(0.001)
