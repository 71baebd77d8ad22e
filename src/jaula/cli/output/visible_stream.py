"""Standard output and error of the commands: all text is printed through these two streams.

What the commands print was chosen by engines, registries, peers and containers. So control
characters are made visible at the one place that every text passes.
The commands' own escape sequences go through :func:`write_control`. The streams of containers
(``logs``, ``attach``, ``run``, ``exec``) are bytes, written to the descriptors, as with Docker.
"""

from __future__ import annotations

import sys

from jaula.spec.visible_text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO


class VisibleStream:
    """A text stream whose ``write`` makes control characters visible."""

    def __init__(self, stream: TextIO) -> None:
        self.unchanged = stream

    def write(self, text: str) -> int:
        """Write a text. Its control characters become escapes."""
        self.unchanged.write(visible(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unchanged, name)


class VisibleOutput:
    """Replaces standard output and error by visible streams, as a context manager."""

    def __enter__(self) -> None:
        self._previous = sys.stdout, sys.stderr
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, VisibleStream):
                setattr(sys, name, VisibleStream(stream))

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._previous


def write_control(output: TextIO, sequence: str) -> None:
    """Write an escape sequence of this program, which has no text of others."""
    stream = output.unchanged if isinstance(output, VisibleStream) else output
    stream.write(sequence)
