"""Signals as events of a poll loop.

Python runs a handler between two instructions of the main thread, and restarts a ``poll`` that a
signal interrupted (PEP 475); the wake-up descriptor is what ends the poll. ``signal`` itself is not
imported: it builds three enumerations.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from posix import O_CLOEXEC, O_NONBLOCK, close, pipe2, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM = 1, 2, 3, 10, 12, 14, 15
SIGCONT, SIGTSTP, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR = 18, 20, 26, 27, 28, 29, 30

# What a container is told when the client is told it. Not among them: what cannot be caught, what a
# fault of the client causes, SIGCHLD, SIGPIPE and SIGURG, which concern the client alone.
PROXIED = (
    SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCONT, SIGTSTP, SIGVTALRM,
    SIGPROF, SIGWINCH, SIGIO, SIGPWR,
)  # fmt: skip
ENDING = (SIGHUP, SIGINT, SIGQUIT, SIGTERM)

NAMES = {
    SIGHUP: "HUP", SIGINT: "INT", SIGQUIT: "QUIT", SIGUSR1: "USR1", SIGUSR2: "USR2",
    SIGALRM: "ALRM", SIGTERM: "TERM", SIGCONT: "CONT", SIGTSTP: "TSTP", SIGVTALRM: "VTALRM",
    SIGPROF: "PROF", SIGWINCH: "WINCH", SIGIO: "IO", SIGPWR: "PWR",
}  # fmt: skip


class SignalHandler:
    """A context in which ``signals`` are collected; ``fileno`` is readable when one came.

    A signal that was ignored when the client started (``nohup``, a background job) stays so.
    """

    def __init__(self, signals: tuple[int, ...]) -> None:
        self._signals = signals
        self._before: list[tuple[int, object]] = []
        self._came: list[int] = []
        self._read = self._write = -1

    def fileno(self) -> int:
        return self._read

    def __enter__(self) -> SignalHandler:
        self._read, self._write = pipe2(O_CLOEXEC | O_NONBLOCK)
        _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._signals:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                self._before.append((number, _signal.signal(number, self._note)))
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came.append(number)

    def take(self) -> list[int]:
        """The signals that came since the last call, in order."""
        try:
            while read(self._read, 512):
                pass
        except BlockingIOError:
            pass
        came, self._came = self._came, []
        return came

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(-1)
        close(self._read)
        close(self._write)
