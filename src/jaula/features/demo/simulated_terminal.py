"""A simulated user at a terminal: a pseudo-terminal with a program, keys and the screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import termios
import time
from collections.abc import Callable

from jaula.kernel.poll import readable

TIMEOUT = 60.0  # seconds for the expected text to appear
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


class Terminal:
    """A program on a pseudo-terminal, as a context manager.

    The program is terminated at the exit.
    """

    def __init__(self, arguments: list[str], rows: int, columns: int) -> None:
        self.screen = b""
        self._position = 0
        self._status: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execv(arguments[0], arguments)
        self.resize(rows, columns)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is None:
            os.kill(self.pid, signal.SIGTERM)
            self.wait()
        os.close(self.fd)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the terminal; the kernel sends SIGWINCH."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Send keys."""
        os.write(self.fd, keys.encode())

    def until(self, text: str, timeout: float = TIMEOUT) -> bool:
        """Read until ``text`` appears after the last match; False after the timeout."""
        expected = text.encode()
        return self._read(lambda: self._match(expected), timeout)

    def _match(self, expected: bytes) -> bool:
        at = self.plain.find(expected, self._position)
        if at < 0:
            return False
        self._position = at + len(expected)
        return True

    @property
    def plain(self) -> bytes:
        """Return the text of the screen without escape sequences."""
        return ESCAPES.sub(b"", self.screen).replace(b"\r", b"")

    def _read(self, done: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not done():
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not readable(remaining, self.fd):
                return done()
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return done()  # the program closed the terminal: it has ended
            if not data:
                return done()
            self.screen += data
        return True

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Return the program's exit status. It is killed if it does not end in time."""
        deadline = time.monotonic() + timeout
        while self._status is None:
            self._read(lambda: False, 0.05)
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline += timeout
        return self._status
