"""A live view: redrawn in place on a terminal, printed one after the other elsewhere."""

from __future__ import annotations

import sys

from jaula.cli.output.ansi import redraws

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Screen:
    """The alternate screen of the terminal, as a context manager. It is left on every way out."""

    def __init__(self, *, full_screen: bool = True) -> None:
        self.is_terminal = redraws(1)
        self._full_screen = full_screen and self.is_terminal

    def __enter__(self) -> Screen:
        if self._full_screen:
            sys.stdout.write(ENTER)
            sys.stdout.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._full_screen:
            sys.stdout.write(LEAVE)
            sys.stdout.flush()

    def draw(self, text: str) -> None:
        """Replace the previous text by ``text``."""
        if not self.is_terminal:
            sys.stdout.write(text)
        else:
            from jaula.cli.output.terminal import size

            rows = size(1)[0] or 24
            lines = text.rstrip("\n").split("\n")[: rows - 1]
            body = "".join(line + CLEAR_LINE + "\r\n" for line in lines)  # also in raw mode
            sys.stdout.write(HOME + body + CLEAR_BELOW)
        sys.stdout.flush()
