"""Signals as events of a poll loop.

Python runs a handler between two instructions of the main thread and restarts a ``poll`` that a
signal interrupted (PEP 475). The wake-up descriptor is what ends the poll. The module ``signal`` is
not imported: it builds three enumerations, which costs start-up time.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from posix import O_CLOEXEC, O_NONBLOCK, close, pipe2, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM = 1, 2, 3, 10, 12, 14, 15
SIGCONT, SIGTSTP, SIGVTALRM, SIGPROF, SIGWINCH, SIGIO, SIGPWR = 18, 20, 26, 27, 28, 29, 30

# Signals that the client forwards to the container. Not forwarded: signals that cannot be caught,
# signals of a fault in the client, and SIGCHLD, SIGPIPE and SIGURG, which concern the client only.
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
    """A context manager that collects ``signals``; ``fileno`` is readable after a signal.

    A signal that was ignored when the client started (``nohup``, a background job) stays ignored.
    """

    def __init__(self, signals: tuple[int, ...]) -> None:
        self._signals = signals
        self._before: list[tuple[int, object]] = []
        self._received: list[int] = []
        self._read = self._write = -1

    def fileno(self) -> int:
        return self._read

    def __enter__(self) -> SignalHandler:
        self._read, self._write = pipe2(O_CLOEXEC | O_NONBLOCK)
        _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._signals:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                self._before.append((number, _signal.signal(number, self._on_signal)))
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._received.append(number)

    def take(self) -> list[int]:
        """Return the signals received since the last call, in order."""
        try:
            while read(self._read, 512):
                pass
        except BlockingIOError:
            pass
        received, self._received = self._received, []
        return received

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(-1)
        close(self._read)
        close(self._write)
