"""Wait for a process in the foreground: forward signals, relay its terminal, return its status.

Signals that this command receives go to the process. If the process has a terminal of its own, the
caller's terminal is put into raw mode, and both are relayed until the process has exited.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import tty

from jaula.kernel import process_calls
from jaula.kernel.tty import set_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.oci.notify_socket import NotifySocket

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
READ_SIZE = 1 << 16  # bytes


def block_signals() -> None:
    """Block signals until :func:`wait_for_exit` can forward them, so that none is lost.

    A process that is forked meanwhile executes its program with an empty mask.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def terminal_size() -> tuple[int, int]:
    """Return rows and columns of the caller's terminal; 0 if there is none."""
    return termios.tcgetwinsize(0) if os.isatty(0) else (0, 0)


def wait_for_exit(pid: int, master: int = -1, notify: NotifySocket | None = None) -> int:
    """Wait for a child of ours; return its exit status as shells count it.

    The states that it sends to ``notify`` are relayed with this process as the main one.
    """
    pidfd = os.pidfd_open(pid)
    wakeup_read, wakeup_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            try:
                signal.signal(number, _ignore)
            except OSError:
                continue  # a signal that the C library reserves
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    terminal = Terminal(master) if master >= 0 else None
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(wakeup_read, select.POLLIN)
    if terminal is not None:
        terminal.register(poll)
    if notify is not None:
        poll.register(notify, select.POLLIN)
    try:
        while True:
            for fd, _ in poll.poll():
                if fd == pidfd:
                    if terminal is not None:
                        terminal.drain()
                    if notify is not None:
                        notify.finish(os.getpid())
                    return process_calls.exit_code(os.waitpid(pid, 0)[1])[0]
                if fd == wakeup_read:
                    _forward(os.read(wakeup_read, 256), pidfd, terminal)
                elif notify is not None and fd == notify.fileno():
                    notify.relay(os.getpid())
                elif terminal is not None:
                    terminal.relay(fd)
    finally:
        if terminal is not None:
            terminal.restore()


def _ignore(number: int, frame: object) -> None:
    """Do nothing: the signal number is in the wake-up pipe."""


def _forward(numbers: bytes, pidfd: int, terminal: Terminal | None) -> None:
    for number in numbers:
        if number == signal.SIGWINCH and terminal is not None:
            terminal.resize()
        elif number not in _NOT_FORWARDED:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                return  # it has exited, which the loop is about to notice


class Terminal:
    """The caller's terminal (or pipes) on one side, a process's terminal on the other."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.saved_attributes = termios.tcgetattr(0) if os.isatty(0) else None
        if self.saved_attributes is not None:
            tty.setraw(0)
            attributes = termios.tcgetattr(0)
            attributes[1] |= termios.OPOST  # the process's terminal adds no carriage return
            termios.tcsetattr(0, termios.TCSADRAIN, attributes)
        self.resize()

    def resize(self) -> None:
        """Copy the size of the caller's terminal."""
        if self.saved_attributes is not None:
            rows, columns = termios.tcgetwinsize(0)
            set_size(self.master, rows, columns)

    def register(self, poll: select.poll) -> None:
        """Watch both sides."""
        self.poll = poll
        poll.register(self.master, select.POLLIN)
        poll.register(0, select.POLLIN)

    def relay(self, fd: int) -> None:
        """Read once and write all of it to the other side."""
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
        """Write the remaining output of the process."""
        os.set_blocking(self.master, False)
        try:
            while data := os.read(self.master, READ_SIZE):
                while data:
                    data = data[os.write(1, data) :]
        except OSError:
            return  # no more output, and no process left to write any

    def restore(self) -> None:
        """Restore the caller's terminal."""
        if self.saved_attributes is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self.saved_attributes)
