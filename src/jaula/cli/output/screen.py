"""A view that is drawn again and again, in place on a terminal, below each other elsewhere."""

from __future__ import annotations

import sys

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Screen:
    """A context: the terminal's other screen with ``keys``, restored on every way out."""

    def __init__(self, *, whole: bool = True) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._whole = whole and self.is_terminal

    def __enter__(self) -> Screen:
        if self._whole:
            sys.stdout.write(ENTER)
            sys.stdout.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._whole:
            sys.stdout.write(LEAVE)
            sys.stdout.flush()

    def draw(self, text: str) -> None:
        """Show ``text`` instead of what was drawn before."""
        if not self.is_terminal:
            sys.stdout.write(text)
        else:
            from jaula.cli.output.terminal import size

            rows = size(1)[0] or 24
            lines = text.rstrip("\n").split("\n")[: rows - 1]
            body = "".join(line + CLEAR_LINE + "\r\n" for line in lines)  # also in raw mode
            sys.stdout.write(HOME + body + CLEAR_BELOW)
        sys.stdout.flush()
