"""A person at a terminal, played: a pseudo-terminal with a program on it, keys and screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable

PATIENCE = 20.0  # seconds for what is awaited to appear
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


class Terminal:
    """A program on a pseudo-terminal. A context; the program is ended on the way out."""

    def __init__(self, arguments: list[str], rows: int, columns: int) -> None:
        self.screen = b""
        self._seen = 0
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
        """Change the window's size; the kernel sends SIGWINCH."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Send keys."""
        os.write(self.fd, keys.encode())

    def until(self, text: str, patience: float = PATIENCE) -> bool:
        """Read until ``text`` appears behind what was awaited before; False when it does not."""
        wanted = text.encode()
        return self._read(lambda: self._found(wanted), patience)

    def _found(self, wanted: bytes) -> bool:
        at = self.plain.find(wanted, self._seen)
        if at < 0:
            return False
        self._seen = at + len(wanted)
        return True

    @property
    def plain(self) -> bytes:
        """The screen's text without escape sequences."""
        return ESCAPES.sub(b"", self.screen).replace(b"\r", b"")

    def _read(self, done: Callable[[], bool], patience: float) -> bool:
        deadline = time.monotonic() + patience
        while not done():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                return done()
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return done()  # the other side is closed: the program has ended
            if not data:
                return done()
            self.screen += data
        return True

    def wait(self, patience: float = PATIENCE) -> int:
        """The program's exit status. It is killed when it does not end in time."""
        deadline = time.monotonic() + patience
        while self._status is None:
            self._read(lambda: False, 0.05)
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                deadline += patience
        return self._status
