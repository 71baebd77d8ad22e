"""The interface of a log driver's writer. One test suite in ``tests/unit/logs`` covers each."""

from __future__ import annotations

from typing import Protocol

PARTIAL = 16 * 1024
"""Bytes of an unfinished line that are buffered, as in Docker's copier."""


class LogWriter(Protocol):
    """Receives the output of a container in the chunks in which it was read.

    A writer blocks on a local disk only. It never raises for a full or failing disk, because the
    container must not stop for its log. ``dropped`` counts the lost bytes, ``error`` says why.
    """

    dropped: int  # bytes of output that could not be stored
    error: str  # the latest reason, or ''

    def write(self, stream: str, data: bytes) -> None:
        """Write output of ``stdout`` or ``stderr``. An unfinished last line is buffered."""
        ...

    def flush(self) -> None:
        """Write the buffered lines, and finish background work soon."""
        ...

    def poll(self) -> float | None:
        """Continue background work. Return the seconds until the next call, None if there is none.

        The shim calls it once in each round of its loop.
        """
        ...

    def reopen(self) -> None:
        """Open the file of the log again, by its path: another program has renamed it.

        A driver that rotates its own files, or has none, does nothing.

        :raises OSError: when it cannot be opened. The writer keeps the present file then.
        """
        ...

    def close(self) -> None:
        """Flush, then close. Further calls do nothing."""
        ...


class FileLogWriter(LogWriter, Protocol):
    """A writer of files, which can say in the log that lines are missing."""

    def lose(self, lines: int, size: int, reason: str) -> None:
        """Note that ``size`` bytes with the ends of ``lines`` lines are not written."""
        ...
