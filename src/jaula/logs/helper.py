"""A helper process of a log writer: forked, watched by a pidfd, reaped by its writer.

The shim waits for its own children by their pids and never for any child, so neither reaps the
other's (pidfd_open(2), waitid(2) with P_PIDFD).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterable

from jaula.kernel import process_calls


class HelperProcess:
    """Runs ``work`` with the descriptors in ``keep`` and 0 to 2; no other descriptor is open."""

    def __init__(self, work: Callable[[], None], keep: Iterable[int]) -> None:
        """Fork the process.

        :raises OSError: when the process cannot be created; then none is left.
        """
        self.succeeded = False
        self._exited = False
        self.pid = os.fork()
        if not self.pid:
            _run(work, keep)
        try:
            self._pidfd = process_calls.pidfd_open(self.pid)
        except OSError:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise

    def exited(self, timeout: float = 0.0) -> bool:
        """Return whether the process has exited, and reap it. Wait up to ``timeout`` seconds."""
        if self._exited:
            return True
        if timeout:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(timeout * 1000)
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            self._exited = result is not None
            self.succeeded = result is not None and (result.si_code, result.si_status) == (
                os.CLD_EXITED,
                0,
            )
        except ChildProcessError:  # already reaped elsewhere; its exit status is lost
            self._exited = True
        return self._exited

    def kill(self) -> None:
        """Send SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            process_calls.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Close the pidfd. A process that hangs in the kernel is not waited for."""
        os.close(self._pidfd)


def _run(work: Callable[[], None], keep: Iterable[int]) -> None:
    """Run ``work`` in the forked process. Does not return."""
    code = 1
    try:
        process_calls.close_fds_except(keep)
        work()
        code = 0
    finally:
        os._exit(code)
