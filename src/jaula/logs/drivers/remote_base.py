"""What log drivers that send have in common: options, and output cut into records.

``container-id``, ``container-name`` and ``tag`` come from the engine, which makes them of the
container and the template that was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaula.errors import InvalidRequest
from jaula.logs import options
from jaula.logs.buffered_sender import BufferedSender
from jaula.logs.line_buffer import LineBuffer

IDENTITY = ("container-id", "container-name")
COMMON = ("tag", "mode", "max-buffer-size", *IDENTITY)
BUFFER = 1_000_000  # bytes, as Docker's


def buffer_size(driver: str, given: Mapping[str, str]) -> int:
    """Bytes that may be held back. Raises ``InvalidRequest``."""
    mode = given.get("mode", "non-blocking")
    if mode != "non-blocking":
        raise InvalidRequest(
            f"the {driver} log driver has no mode {mode!r}: a container does not wait for its log",
            hint="mode=non-blocking",
        )
    if "max-buffer-size" not in given:
        return BUFFER
    return options.parse_size("max-buffer-size", given["max-buffer-size"]) or BUFFER


class RemoteWriter:
    """See :class:`jaula.logs.protocol.LogWriter`. ``record`` gets a line without its end."""

    def __init__(self, outlet: BufferedSender, record: Callable[[str, bytes, bool], bytes]) -> None:
        self._outlet = outlet
        self._record = record
        self._streams = {"stdout": LineBuffer(), "stderr": LineBuffer()}
        self._closed = False
        self.dropped = 0
        self.error = ""

    def _note(self) -> None:
        self.dropped, self.error = self._outlet.dropped, self._outlet.error

    def write(self, stream: str, data: bytes) -> None:
        if self._closed:
            return
        for piece in self._streams[stream].feed(data):
            self._send(stream, piece)
        self._note()

    def _send(self, stream: str, piece: bytes) -> None:
        whole = piece.endswith(b"\n")
        for line in piece.removesuffix(b"\n").split(b"\n"):
            if line:
                self._outlet.send(self._record(stream, line, whole))

    def flush(self) -> None:
        if self._closed:
            return
        for stream, lines in self._streams.items():
            if rest := lines.finish():
                self._send(stream, rest)
        self._outlet.push()
        self._note()

    def poll(self) -> float | None:
        return None

    def close(self) -> None:
        if not self._closed:
            self.flush()
            self._closed = True
            self._outlet.close()
            self._note()
