"""A user at a terminal: a pseudo-terminal that runs a command."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType

from jaula.kernel.poll import readable


class Terminal:
    """Runs ``words`` as session leader of a new terminal."""

    def __init__(
        self, words: Sequence[str], environment: dict[str, str], rows: int = 24, columns: int = 80
    ) -> None:
        self.master, slave = pty.openpty()
        self.seen = ""
        self.resize(rows, columns)
        self.process = subprocess.Popen(
            words,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment | {"TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, seconds: float = 20.0) -> re.Match[str]:
        """Wait until ``pattern`` appears; output up to its end is consumed."""
        deadline = time.monotonic() + seconds
        while True:
            if match := re.search(pattern, self.seen):
                self.seen = self.seen[match.end() :]
                return match
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {pattern!r} on the terminal, but {self.seen!r}")

    def _read(self, seconds: float) -> bool:
        if not readable(seconds, self.master):
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def wait(self, seconds: float = 20.0) -> int:
        """Return the exit status of the command and keep reading its output."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.05)
        return self.process.wait(0.1)
