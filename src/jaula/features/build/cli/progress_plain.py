"""Progress output without a terminal: plain lines, quiet, or JSON."""

from __future__ import annotations

import sys

from jaula.cli.output.visible_stream import write_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TextIO

    from jaula.features.build.cli.build_output import ProgressStep

_MAX_LINES = 2000  # lines


class PlainView:
    """``--progress plain``: every line with the number of its step, as it arrives."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stderr

    def _write(self, text: str) -> None:
        self._output.write(text + "\n")
        self._output.flush()

    def began(self, step: ProgressStep) -> None:
        self._write(f"#{step.number} {step.title}")

    def line(self, step: ProgressStep, text: str) -> None:
        """Print a line of the program of a step, as it is."""
        self._write_line(f"#{step.number} {step.elapsed:.3f} {text}")

    def _write_line(self, text: str) -> None:
        write_control(self._output, text + "\n")
        self._output.flush()

    def ended(self, step: ProgressStep) -> None:
        if step.state == "cached":
            self._write(f"#{step.number} CACHED")
        elif step.state == "failed":
            self._write(f"#{step.number} ERROR: {step.error.partition(chr(10))[0]}")
        else:
            self._write(f"#{step.number} DONE {step.seconds:.1f}s")

    def text(self, text: str) -> None:
        self._write(text)


class QuietView(PlainView):
    """``--quiet``: keeps the last lines, to print them if the build fails."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    def _write(self, text: str) -> None:
        self._lines.append(text)
        if len(self._lines) > 2 * _MAX_LINES:
            del self._lines[:_MAX_LINES]

    _write_line = _write

    def print_lines(self) -> None:
        """Print the last lines."""
        self._output.write("".join(f"{line}\n" for line in self._lines[-_MAX_LINES:]))
        self._output.flush()


class NullView:
    """No output: the messages are printed in another way."""

    def began(self, step: ProgressStep) -> None:
        return

    def line(self, step: ProgressStep, text: str) -> None:
        return

    def ended(self, step: ProgressStep) -> None:
        return

    def text(self, text: str) -> None:
        return


def as_json(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Print the messages as JSON lines (``--progress json``) and pass them on."""
    from jaula.spec.fast_json import encode

    for message in messages:
        sys.stderr.write(encode(message) + "\n")
        sys.stderr.flush()
        yield message
