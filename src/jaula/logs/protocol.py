"""What a log driver's writer does. One suite in ``tests/unit/logs`` holds for each."""

from __future__ import annotations

from typing import Protocol

PARTIAL = 16 * 1024
"""Bytes of a line without an end that are held back, as Docker's copier has it."""


class LogWriter(Protocol):
    """Takes what a container printed, in the pieces in which it was read.

    Never blocks but for a local disk and never raises for a full or failing one: the container
    must not stop for its log. ``dropped`` tells how much was lost and ``error`` why.
    """

    dropped: int  # bytes of output that could not be kept
    error: str  # the latest reason, or ''

    def write(self, stream: str, data: bytes) -> None:
        """``stream`` is ``stdout`` or ``stderr``. A last line without end is held back."""
        ...

    def flush(self) -> None:
        """Write what is held back, and end soon what goes on beside."""
        ...

    def poll(self) -> float | None:
        """Go on with what goes on beside; seconds until the next call, None where nothing does.

        The shim calls it in each round of its loop.
        """
        ...

    def close(self) -> None:
        """Flush, then close; more calls do nothing."""
        ...
