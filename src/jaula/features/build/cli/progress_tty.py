"""``--progress tty``: all steps on the terminal, redrawn in place while they run.

A running step shows its last lines below it. Stages that run at the same time show side by side.
The output of programs is shown without control characters. A thread draws, so that the clocks go on
while no message arrives.
"""

from __future__ import annotations

import re
import sys
import threading
from collections import deque

from jaula.cli.output.ansi import accepts_colors
from jaula.cli.output.user_terminal import size
from jaula.cli.output.visible_stream import write_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from jaula.features.build.cli.build_output import ProgressStep

_INTERVAL = 0.1  # seconds between two drawings
_RUNNING_LINES = 6  # lines shown of a running step
_FAILED_LINES = 30  # lines shown of a failed step
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.?)")
_CLEAR_BELOW = "\x1b[J"
_BLUE, _RED, _PLAIN = "\x1b[34m", "\x1b[31m", "\x1b[0m"


class TtyProgress:
    """A progress view (:mod:`~jaula.features.build.cli.build_output`), a context manager."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stderr
        self._steps: list[ProgressStep] = []
        self._lines: dict[int, deque[str]] = {}
        self._texts: list[str] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._drawn = 0  # lines on the screen that the next drawing replaces
        self._thread = threading.Thread(target=self._run, name="drawing", daemon=True)

    def __enter__(self) -> TtyProgress:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end.set()
        self._thread.join()
        with self._lock:
            for step in self._steps:
                if (
                    step.state == "started"
                ):  # another step failed, or the user interrupted the build
                    step.seconds, step.state = step.elapsed, "canceled"
            self._draw(final=kind is None)

    def _run(self) -> None:
        while not self._end.wait(_INTERVAL):
            with self._lock:
                self._draw()

    # -- the view -------------------------------------------------------------------------------

    def began(self, step: ProgressStep) -> None:
        with self._lock:
            self._steps.append(step)
            self._lines[step.number] = deque(maxlen=_FAILED_LINES)

    def line(self, step: ProgressStep, text: str) -> None:
        with self._lock:
            lines = self._lines.get(step.number)
            if lines is not None:
                lines.append(printable(text))

    def ended(self, step: ProgressStep) -> None:
        with self._lock:
            if step.state != "failed":
                self._lines.pop(step.number, None)

    def text(self, text: str) -> None:
        with self._lock:
            self._texts.append(printable(text))

    # -- the screen -----------------------------------------------------------------------------

    def _draw(self, *, final: bool = False) -> None:
        rows, columns = size(self._output.fileno())
        lines = self.lines(columns or 80)
        if not final and len(lines) > max(rows, 10) - 1:
            lines = [lines[0], *lines[2 - max(rows, 10) :]]
        up = f"\x1b[{self._drawn}A\r" if self._drawn else "\r"
        body = "".join(line + "\n" for line in lines)  # with colours, and printable texts
        write_control(self._output, up + _CLEAR_BELOW + body)
        self._output.flush()
        self._drawn = len(lines)

    def lines(self, columns: int) -> list[str]:
        """Return the lines of the screen, none wider than ``columns``."""
        ended = sum(step.state != "started" for step in self._steps)
        total = self._steps[0].total if self._steps else 0
        seconds = max((step.elapsed for step in self._steps), default=0.0)
        if self._steps:
            first = min(step.began for step in self._steps)
            seconds = max(step.began + step.elapsed - first for step in self._steps)
        rows = [f"[+] Building {seconds:.1f}s ({ended}/{total})"[:columns]]
        for step in self._steps:
            rows.append(_step(step, columns, colored=accepts_colors()))
            lines = self._lines.get(step.number, ())
            limit = _FAILED_LINES if step.state == "failed" else _RUNNING_LINES
            rows += [f" => => {line}"[:columns] for line in list(lines)[-limit:]]
            if step.state == "started":
                rows += [
                    printable(f" => => {layer}: {status}")[:columns]
                    for layer, status in step.downloads.items()
                    if status.endswith("%") and not status.endswith("100 %")
                ]
        return rows + [text[:columns] for text in self._texts]


def _step(step: ProgressStep, columns: int, *, colored: bool) -> str:
    label = {"cached": "CACHED ", "failed": "ERROR ", "canceled": "CANCELED "}.get(step.state, "")
    clock = f"{step.elapsed:.1f}s"
    width = max(columns - len(clock) - 1, 10)
    text = f" => {label}{printable(step.title)}"[:width].ljust(width)
    colour = {"failed": _RED, "done": _BLUE, "cached": _BLUE}.get(step.state, "") if colored else ""
    return f"{colour}{text} {clock}{_PLAIN if colour else ''}"


def printable(text: str) -> str:
    """Return a line without escape sequences and control characters; tabs become spaces."""
    plain = _ESCAPES.sub("", text).expandtabs(8)
    return "".join(c for c in plain if c.isprintable())
