"""The log file and the standard error of a command.

Callers read the last line of level ``error`` in a JSON log (containerd), or the text on standard
error (conmon). Without ``--log``, lines go to standard error. With it the log gets the line, and
the text of an error goes to standard error as well. The formats are those of logrus, which callers
parse. A message is one line of at most a kilobyte, whatever a hook printed.
"""

from __future__ import annotations

import posix
import time

from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LEVELS = ("debug", "info", "warning", "error")
MAX_LINE = 1024  # bytes of a line, with its end
_LENGTHS = (900, 450, 140)  # characters of a message, tried until the encoded line fits


class Log:
    """The log of one command; an empty ``path`` means standard error."""

    def __init__(self, path: str = "", log_format: str = "text", *, debug: bool = False) -> None:
        self._json = log_format == "json"
        self._minimum = 0 if debug else 1
        self.debugging = debug
        self._to_stderr = not path
        self._fd = 2
        if path:
            flags = (
                posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC | posix.O_NOCTTY
            )
            self._fd = posix.open(path, flags, 0o644)

    def step(self, text: str) -> None:
        """Log a step of the command, which only ``--debug`` keeps."""
        self._write("debug", text)

    def warning(self, text: str) -> None:
        """Log that something the caller requested could not be applied."""
        self._write("warning", text)

    def error(self, text: str) -> None:
        """Log why the command failed, and write the plain text to standard error."""
        self._write("error", text)
        if not self._to_stderr:
            line = next(line for line in _lines(text, str) if len(line) <= MAX_LINE)
            posix.write(2, line)

    def _write(self, level: str, text: str) -> None:
        if _LEVELS.index(level) < self._minimum:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

        def encode(message: str) -> str:
            if self._json:
                return fast_json.encode({"level": level, "msg": message, "time": now})
            text = fast_json.encode(message)
            return f"time={fast_json.encode(now)} level={level} msg={text}"

        posix.write(self._fd, next(line for line in _lines(text, encode) if len(line) <= MAX_LINE))


def _lines(text: str, encode: Callable[[str], str]) -> Iterator[bytes]:
    """Yield the encoded line of a message, then shorter ones; the last fits into any encoding."""
    text = " ".join(text.split("\n")).replace("\r", " ").strip()
    if len(text) <= _LENGTHS[0]:
        yield f"{encode(text)}\n".encode(errors="replace")
    for length in _LENGTHS:
        tail = length // 3
        short = f"{text[: length - tail]} ... {text[-tail:]}" if len(text) > length else text
        yield f"{encode(short)}\n".encode(errors="replace")
