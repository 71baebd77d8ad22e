"""Processes that another runtime left to the shim, which is a subreaper: watched and reaped.

One that it had put into the container's pid namespace keeps init from being reaped for as long as
it is a zombie (pid_namespaces(7)).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable

from jaula.kernel import process
from jaula.runtime.external import runtime
from jaula.runtime.shim.event_loop import EventLoop


class Reaper:
    """Those that are there and have not been reaped."""

    def __init__(self, poller: EventLoop) -> None:
        self._poller = poller
        self._pids: set[int] = set()

    def look(self, known: Iterable[int]) -> None:
        """Watch every child that is not ``known`` to be somebody else's to reap."""
        for pid in runtime.children():
            if pid not in known and pid not in self._pids:
                self.watch(pid)

    def watch(self, pid: int) -> None:
        """Reap a child when it has ended."""
        pidfd = process.pidfd_open(pid)
        self._pids.add(pid)
        self._poller.watch(pidfd, select.EPOLLIN, self._reaper(pid, pidfd))

    def __contains__(self, pid: int) -> bool:
        return pid in self._pids

    def _reaper(self, pid: int, pidfd: int) -> Callable[[int], None]:
        def reap(_: int) -> None:
            try:
                ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is not None
            except ChildProcessError:  # a log's process, which its writer has reaped
                ended = True
            if ended:
                self._poller.forget(pidfd)
                os.close(pidfd)
                self._pids.discard(pid)

        return reap
