"""Whether a stream takes escape sequences: redrawn lines, and colours.

``TERM=dumb`` is a terminal without either. ``NO_COLOR`` (https://no-color.org), if it is not empty,
and ``--no-color`` switch colours off, and lines are still redrawn.
"""

from __future__ import annotations

from posix import isatty

from jaula.cli.environ import text


class ColorOptions:
    """The value of ``--no-color``."""

    disabled = False


def is_dumb() -> bool:
    """Return whether the terminal can neither move its cursor nor show colours."""
    return text("TERM") == "dumb"


def redraws(descriptor: int) -> bool:
    """Return whether ``descriptor`` is a terminal that can move its cursor."""
    return isatty(descriptor) and not is_dumb()


def accepts_colors() -> bool:
    """Return whether the user of a terminal accepts colours."""
    return not (is_dumb() or text("NO_COLOR") or ColorOptions.disabled)
