"""A process that keeps a scope from being empty until the container's first process is in it.

systemd makes no scope without a process, and removes one that has none any more.
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
    """Forked at once; ends with :meth:`end`, or with the thread that made it."""

    def __init__(self) -> None:
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _wait_for_the_end(parent)
        self._owner = parent
        try:
            self._pidfd: int | None = os.pidfd_open(self.pid)
        except BaseException:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise

    def end(self) -> None:
        """Returns when it has left its cgroup. Does nothing the second time, or in a fork."""
        if self._pidfd is None:
            return
        pidfd, self._pidfd = self._pidfd, None
        try:
            if os.getpid() == self._owner:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                with suppress(ChildProcessError):  # a subreaper that waits for any child has it
                    os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        finally:
            os.close(pidfd)


def _wait_for_the_end(parent: int) -> None:
    """The child: no descriptor, no signal handler, no way back."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(PermissionError):  # without CAP_SYS_RESOURCE it may die of others' hunger
            _spare()
        os.closerange(0, 1 << 20)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        while os.getppid() == parent:
            signal.pause()
    finally:
        os._exit(0)


def _spare() -> None:
    """Have the OOM killer pass it by: its memory is that of the runtime, and often the largest."""
    score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    os.write(score, b"-1000")
