"""A process that works for a log's writer: forked, watched by a pidfd, reaped by it alone.

The shim waits for its own children by their numbers and never for any, so neither takes the
other's (pidfd_open(2), waitid(2) with P_PIDFD).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterable

from jaula.kernel import process


class HelperProcess:
    """Runs ``work`` with the descriptors in ``keep`` and 0 to 2, and with nothing else open."""

    def __init__(self, work: Callable[[], None], keep: Iterable[int]) -> None:
        """Raises ``OSError`` where there can be no process; then there is none."""
        self.succeeded = False
        self._ended = False
        self.pid = os.fork()
        if not self.pid:
            _run(work, keep)
        try:
            self._pidfd = process.pidfd_open(self.pid)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise

    def ended(self, patience: float = 0.0) -> bool:
        """Whether it has ended, waiting so many seconds for that; then it is reaped."""
        if self._ended:
            return True
        if patience:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(patience * 1000)
        try:
            found = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            self._ended = found is not None
            self.succeeded = found is not None and (found.si_code, found.si_status) == (
                os.CLD_EXITED,
                0,
            )
        except ChildProcessError:  # reaped by somebody else, who keeps how it ended
            self._ended = True
        return self._ended

    def kill(self) -> None:
        """End it at whatever it is."""
        with contextlib.suppress(ProcessLookupError):
            process.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it; one that hangs in the kernel is left to its fate."""
        os.close(self._pidfd)


def _run(work: Callable[[], None], keep: Iterable[int]) -> None:
    """The process. Does not return."""
    code = 1
    try:
        process.close_fds_except(keep)
        work()
        code = 0
    finally:
        os._exit(code)
