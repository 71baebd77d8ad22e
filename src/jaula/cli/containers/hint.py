"""The line that names ``jaula why`` after a failure of ``run`` and ``exec``.

It is printed on a terminal only: docker prints nothing, and a script compares standard error.
"""

from __future__ import annotations

import sys
from posix import isatty

NOT_EXECUTABLE, NOT_FOUND = 126, 127
SIGNALLED = 128
_SIGNALS = (4, 7, 8, 9, 11, 31)  # ILL, BUS, FPE, KILL, SEGV, SYS


def is_failure(status: int) -> bool:
    """Return whether a status may come from a refusal: 126, 127, or a fault, a kill or SIGSYS."""
    return status in (NOT_EXECUTABLE, NOT_FOUND) or status - SIGNALLED in _SIGNALS


def print_hint(status: int, command: str) -> None:
    """Print which command explains a failed status, if standard error is a terminal."""
    if is_failure(status) and isatty(2):
        sys.stderr.write(f"jaula: to see why: {command}\n")
        sys.stderr.flush()
