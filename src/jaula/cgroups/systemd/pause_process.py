"""Process that keeps a scope alive until the container's init has entered it.

systemd creates no scope without a process, and removes a scope when it becomes empty.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress

from jaula.kernel.libc import function

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_prctl = function("prctl", ctypes.c_int, ctypes.c_ulong)


class PauseProcess:
    """A forked child process; it exits with :meth:`end` or with the thread that created it."""

    def __init__(self) -> None:
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _pause(parent)
        self._owner = parent
        try:
            self._pidfd: int | None = os.pidfd_open(self.pid)
        except BaseException:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise

    def end(self) -> None:
        """Kill the process and wait until it has left its cgroup.

        A second call, or a call in a fork, does nothing.
        """
        if self._pidfd is None:
            return
        pidfd, self._pidfd = self._pidfd, None
        try:
            if os.getpid() == self._owner:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                with suppress(ChildProcessError):  # a subreaper may have reaped it
                    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        finally:
            os.close(pidfd)


def _pause(parent: int) -> None:
    """Wait in the child until the parent exits; never returns."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(PermissionError):  # needs CAP_SYS_RESOURCE
            _disable_oom_kill()
        os.closerange(0, 1 << 20)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        while os.getppid() == parent:
            signal.pause()
    finally:
        os._exit(0)


def _disable_oom_kill() -> None:
    """Exempt the process from the OOM killer, which prefers large processes such as this fork."""
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.write(score, b"-1000")
