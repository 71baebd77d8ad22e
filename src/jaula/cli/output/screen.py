"""A live view: redrawn in place on a terminal, printed one after the other elsewhere."""

from __future__ import annotations

import sys

from jaula.cli.output.ansi import redraws
from jaula.cli.output.visible_stream import write_control
from jaula.spec.visible_text import visible

HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Screen:
    """The alternate screen of the terminal, as a context manager. It is left on every way out."""

    def __init__(self, *, full_screen: bool = True) -> None:
        self.is_terminal = redraws(1)
        self._full_screen = full_screen and self.is_terminal

    def __enter__(self) -> Screen:
        if self._full_screen:
            write_control(sys.stdout, ENTER)
            sys.stdout.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._full_screen:
            write_control(sys.stdout, LEAVE)
            sys.stdout.flush()

    def draw(self, text: str) -> None:
        """Replace the previous text by ``text``."""
        if not self.is_terminal:
            sys.stdout.write(text)
        else:
            from jaula.cli.output.user_terminal import size

            rows = size(1)[0] or 24
            lines = text.rstrip("\n").split("\n")[: rows - 1]
            body = "".join(visible(line) + CLEAR_LINE + "\r\n" for line in lines)  # also raw
            write_control(sys.stdout, HOME + body + CLEAR_BELOW)
        sys.stdout.flush()
