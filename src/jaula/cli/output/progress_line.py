"""Progress of one long operation, on standard error.

On a terminal one line is redrawn: a bar if the total is known, a counter if bytes are counted, else
the elapsed time. It appears after a moment, so that a short operation shows nothing, and is erased
at the end. Elsewhere a line is printed each ten seconds.

A timer signal draws, so neither a thread nor a look at the clock for each chunk is needed. Facts
about it: Python restarts system calls after the handler (PEP 475), a forked child has no timer, and
a handler runs in the main thread only, which is the only one of these commands.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import sys
from posix import write
from time import monotonic

from jaula.cli.output.ansi import redraws
from jaula.cli.output.user_terminal import size
from jaula.spec.visible_text import visible_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FIRST, INTERVAL = 0.3, 0.1  # seconds, on a terminal
PLAIN_INTERVAL = 10.0  # seconds between lines elsewhere
BAR_CELLS = 30
ERASE_LINE = b"\r\x1b[K"


class Progress:
    """The progress of one operation, as a context manager.

    ``title`` names it, as ``save``. ``total`` is in bytes, 0 if it is unknown. Nothing is printed
    with ``quiet``. With ``timer=False`` a terminal has the title without a time: for operations
    whose own system calls a signal could interrupt.
    """

    def __init__(
        self, title: str, *, total: int = 0, quiet: bool = False, timer: bool = True
    ) -> None:
        self._title = visible_line(title)
        self._total = total
        self._quiet = quiet
        self._timer = timer
        self._count = 0
        self._start = 0.0
        self._drawn = False
        self._redraws = redraws(2)

    def __enter__(self) -> Progress:
        if not self._timer:
            if not self._quiet and self._redraws:
                self._drawn = True
                _print(ERASE_LINE + f"{self._title} ...".encode())
        elif not self._quiet:
            self._start = monotonic()
            sys.stdout.flush()
            self._previous = _signal.signal(_signal.SIGALRM, self._tick)
            first, interval = (
                (FIRST, INTERVAL) if self._redraws else (PLAIN_INTERVAL, PLAIN_INTERVAL)
            )
            self._other_timer = _signal.setitimer(_signal.ITIMER_REAL, first, interval)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer and not self._quiet:
            _signal.setitimer(_signal.ITIMER_REAL, 0)
            _signal.signal(_signal.SIGALRM, self._previous)
            _signal.setitimer(_signal.ITIMER_REAL, *self._other_timer)
        if self._drawn and self._redraws:
            _print(ERASE_LINE)

    def add(self, count: int) -> None:
        """Count bytes."""
        self._count += count

    def counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield ``chunks`` and count their bytes."""
        for chunk in chunks:
            self._count += len(chunk)
            yield chunk

    def _tick(self, *_: object) -> None:
        self._drawn = True
        seconds = monotonic() - self._start
        if self._redraws:
            columns = size(2)[1] or 80
            text = line(self._title, self._count, self._total, seconds, columns)
            _print(ERASE_LINE + text.encode())
        else:
            _print(line(self._title, self._count, self._total, seconds, 0).encode() + b"\n")


def _print(data: bytes) -> None:
    try:
        write(2, data)
    except OSError:
        pass  # standard error is closed or its reader has ended: the operation goes on


def line(title: str, count: int, total: int, seconds: float, columns: int) -> str:
    """Return the text of one moment, not wider than ``columns``; 0: without a bar. Pure."""
    from jaula.spec.units import human_size

    clock = (
        f"{int(seconds) // 60}m{int(seconds) % 60:02d}s" if seconds >= 60 else f"{int(seconds)}s"
    )
    if not count:
        return f"{title}: {clock}"[: columns or None]
    if not total or count > total:
        return f"{title}: {human_size(count)}, {clock}"[: columns or None]
    numbers = f"{human_size(count)}/{human_size(total)} {count * 100 // total}%, {clock}"
    plain = f"{title}: {numbers}"
    if not columns:
        return plain
    if len(plain) + BAR_CELLS + 4 > columns:
        return plain[:columns]
    cells = count * BAR_CELLS // total
    return f"{title}: [{'=' * cells}{' ' * (BAR_CELLS - cells)}] {numbers}"


def file_size(descriptor: int) -> int:
    """Return the size of a regular file in bytes; 0 if it is unknown."""
    from posix import fstat

    result = fstat(descriptor)
    return result.st_size if result.st_mode & 0o170000 == 0o100000 else 0
