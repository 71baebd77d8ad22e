"""Staying with a process in the foreground: its signals, its terminal, its exit status.

Signals that this command gets go to the process. Where the process has a terminal of its own, the
caller's is put into raw mode and both are joined until the process has ended.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import tty

from jaula.kernel import process
from jaula.kernel.tty import set_size

_NOT_FORWARDED = frozenset(
    (
        signal.SIGCHLD,
        signal.SIGWINCH,
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGPIPE,
        signal.SIGURG,
        signal.SIGTTIN,
        signal.SIGTTOU,
    )
)
READ_SIZE = 1 << 16


def hold_signals() -> None:
    """From now on signals wait for :func:`stay`, so that none is lost before it can forward it.

    What is forked meanwhile starts its program with an empty mask.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def size() -> tuple[int, int]:
    """Rows and columns of the caller's terminal; 0 where there is none."""
    return termios.tcgetwinsize(0) if os.isatty(0) else (0, 0)


def stay(pid: int, master: int = -1) -> int:
    """Wait for a child of ours; its exit status as shells count it."""
    pidfd = os.pidfd_open(pid)
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, _noted)
            except OSError:
                continue  # a number that the C library keeps for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    terminal = Terminal(master) if master >= 0 else None
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(woken, select.POLLIN)
    if terminal is not None:
        terminal.join(poll)
    try:
        while True:
            for fd, _ in poll.poll():
                if fd == pidfd:
                    if terminal is not None:
                        terminal.drain()
                    return process.exit_code(os.waitpid(pid, 0)[1])[0]
                if fd == woken:
                    _forward(os.read(woken, 256), pidfd, terminal)
                elif terminal is not None:
                    terminal.pass_on(fd)
    finally:
        if terminal is not None:
            terminal.leave()


def _noted(number: int, frame: object) -> None:
    """The number is in the wake-up pipe by now."""


def _forward(numbers: bytes, pidfd: int, terminal: Terminal | None) -> None:
    for number in numbers:
        if number == signal.SIGWINCH and terminal is not None:
            terminal.resize()
        elif number not in _NOT_FORWARDED:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                return  # it has ended, which the loop is about to see


class Terminal:
    """The caller's terminal (or pipes) on one side, a process's on the other."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.former = termios.tcgetattr(0) if os.isatty(0) else None
        if self.former is not None:
            tty.setraw(0)
        self.resize()

    def resize(self) -> None:
        """As large as the caller's."""
        if self.former is not None:
            rows, columns = termios.tcgetwinsize(0)
            set_size(self.master, rows, columns)

    def join(self, poll: select.poll) -> None:
        """Watch both sides."""
        self.poll = poll
        poll.register(self.master, select.POLLIN)
        poll.register(0, select.POLLIN)

    def pass_on(self, fd: int) -> None:
        """One read, and everything of it written to the other side."""
        try:
            data = os.read(fd, READ_SIZE)
        except OSError:  # EIO: no process has the terminal open
            data = b""
        if not data:
            self.poll.unregister(fd)
            if fd == 0:
                os.write(self.master, b"\x04")  # the terminal's end of file
            return
        target = 1 if fd == self.master else self.master
        while data:
            data = data[os.write(target, data) :]

    def drain(self) -> None:
        """What the process printed before it ended."""
        os.set_blocking(self.master, False)
        try:
            while data := os.read(self.master, READ_SIZE):
                while data:
                    data = data[os.write(1, data) :]
        except OSError:
            return  # nothing more for now, and nobody left to write

    def leave(self) -> None:
        """The caller's terminal as it was."""
        if self.former is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self.former)
