"""The base of log drivers that send: their options, and the split of output into messages.

The engine sets ``container-id`` and ``container-name``, and makes ``tag`` from the template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.logs import log_opt
from jaula.logs.buffered_sender import BufferedSender
from jaula.logs.line_buffer import LineBuffer

IDENTITY = ("container-id", "container-name")
COMMON = ("tag", "mode", "max-buffer-size", *IDENTITY)


def buffer_size(driver: str, log_opts: Mapping[str, str]) -> int:
    """Return how many bytes may be buffered.

    :raises InvalidRequest: when the mode is not non-blocking, or the size is not valid.
    """
    mode = log_opts.get("mode", "non-blocking")
    if mode != "non-blocking":
        raise InvalidRequest(
            f"the {driver} log driver has no mode {mode!r}: a container does not wait for its log",
            hint="mode=non-blocking",
        )
    if "max-buffer-size" not in log_opts:
        return log_opt.BUFFER
    return log_opt.parse_size("max-buffer-size", log_opts["max-buffer-size"]) or log_opt.BUFFER


def attributes(log_opts: Mapping[str, str]) -> dict[str, str]:
    """Return what the engine has made of a container's labels, variables and names."""
    text = log_opts.get("attributes", "")
    return msgspec.json.decode(text, type=dict[str, str]) if text else {}


Message = Callable[[str, bytes, bool], Sequence[bytes]]
"""Returns the messages of a line, from its stream, its text without newline, and whether that is
complete."""


class RemoteWriter:
    """A :class:`jaula.logs.log_driver.LogWriter` that sends each line."""

    def __init__(self, sender: BufferedSender, message: Message) -> None:
        self._sender = sender
        self._message = message
        self._streams = {"stdout": LineBuffer(), "stderr": LineBuffer()}
        self._closed = False
        self.dropped = 0
        self.error = ""

    def _update_status(self) -> None:
        self.dropped, self.error = self._sender.dropped, self._sender.error

    def write(self, stream: str, data: bytes) -> None:
        if self._closed:
            return
        for chunk in self._streams[stream].feed(data):
            self._send(stream, chunk)
        self._update_status()

    def _send(self, stream: str, chunk: bytes) -> None:
        complete = chunk.endswith(b"\n")
        for line in chunk.removesuffix(b"\n").split(b"\n"):
            if line:
                for message in self._message(stream, line, complete):
                    self._sender.send(message)

    def flush(self) -> None:
        if self._closed:
            return
        for stream, buffer in self._streams.items():
            if rest := buffer.finish():
                self._send(stream, rest)
        self._sender.flush()
        self._update_status()

    def poll(self) -> float | None:
        return None

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        if not self._closed:
            self.flush()
            self._closed = True
            self._sender.close()
            self._update_status()
