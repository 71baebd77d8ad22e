"""The user's terminal: raw mode while a container is attached to it, and its size.

Raw mode is the mode of ``cfmakeraw`` in termios(3). It is left whenever Python code still runs,
also after a signal that ends the client.
"""

from __future__ import annotations

import fcntl
import termios
from posix import isatty
from sys import byteorder

from jaula.cli.cli_errors import NotATerminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IFLAG, OFLAG, CFLAG, LFLAG, CC = 0, 1, 2, 3, 6


def check_terminal() -> None:
    """Check that standard input is a terminal.

    :raises NotATerminal: when it is not.
    """
    if not isatty(0):
        raise NotATerminal("the input device is not a TTY")


class RawTerminal:
    """Raw mode for ``descriptor``, if it is a terminal, as a context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None

    def __enter__(self) -> RawTerminal:
        if isatty(self._descriptor):
            before = termios.tcgetattr(self._descriptor)
            self._before = list(before)
            termios.tcsetattr(self._descriptor, termios.TCSANOW, _raw(before))
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Restore the previous mode. It may be called again."""
        before, self._before = self._before, None
        if before is not None:
            try:
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)
            except termios.error:
                return  # the terminal itself is gone


def _raw(before: list[Any]) -> list[Any]:
    mode = list(before)
    mode[IFLAG] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    mode[OFLAG] &= ~termios.OPOST
    mode[LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[CFLAG] = (mode[CFLAG] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    control = list(before[CC])
    control[termios.VMIN], control[termios.VTIME] = 1, 0
    mode[CC] = control
    return mode


def size(descriptor: int) -> tuple[int, int]:
    """Return height and width in cells, or zeros if ``descriptor`` is not a terminal."""
    try:
        data = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return 0, 0
    return int.from_bytes(data[0:2], byteorder), int.from_bytes(data[2:4], byteorder)


def console_size() -> list[int] | None:
    """Return ``ConsoleSize`` of the API: height and width of standard output, or None."""
    height, width = size(1)
    return [height, width] if height and width else None
