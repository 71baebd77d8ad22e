"""The log file and the standard error of a command.

Callers read the last line of level ``error`` in a JSON log (containerd), or the text on standard
error (conmon). Without ``--log``, lines go to standard error. With it the log gets the line, and
the text of an error goes to standard error as well. The formats are those of logrus, which callers
parse.
"""

from __future__ import annotations

import os
import time

from jaula.spec import fast_json

_LEVELS = ("debug", "info", "warning", "error")


class Log:
    """The log of one command; an empty ``path`` means standard error."""

    def __init__(self, path: str = "", log_format: str = "text", *, debug: bool = False) -> None:
        self._json = log_format == "json"
        self._minimum = 0 if debug else 1
        self._to_stderr = not path
        self._fd = 2
        if path:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
            self._fd = os.open(path, flags, 0o644)

    def debug(self, text: str) -> None:
        """Log a message that only ``--debug`` keeps."""
        self._write("debug", text)

    def warning(self, text: str) -> None:
        """Log that something the caller requested could not be applied."""
        self._write("warning", text)

    def error(self, text: str) -> None:
        """Log why the command failed, and write the plain text to standard error."""
        self._write("error", text)
        if not self._to_stderr:
            os.write(2, f"{text}\n".encode(errors="replace"))

    def _write(self, level: str, text: str) -> None:
        if _LEVELS.index(level) < self._minimum:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = fast_json.encode({"level": level, "msg": text, "time": now})
        else:
            line = f"time={fast_json.encode(now)} level={level} msg={fast_json.encode(text)}"
        os.write(self._fd, f"{line}\n".encode(errors="replace"))
