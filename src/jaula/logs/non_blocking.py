"""``mode=non-blocking`` for drivers that write files: a process of its own writes them.

A write to a disk that hangs, or that is far behind, holds up whoever writes. With this mode that is
a forked process, and the container goes on: what the process has not taken yet waits in a socket of
``max-buffer-size`` bytes, and what exceeds that is dropped, as by Docker's ring buffer.

Source: docker docs "Configure logging drivers", "Configure the delivery mode".

Facts about unix(7): a message of a SOCK_SEQPACKET socket is sent whole or not at all, so no record
is ever cut. The kernel counts a buffer with its own overhead, which for short pieces is several
times the text; what fits is less than the number says.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from jaula.errors import InvalidRequest
from jaula.logs import options
from jaula.logs.helper import HelperProcess
from jaula.logs.protocol import LogWriter

BUFFER = 1_000_000  # bytes, as Docker's
_SMALLEST = 256 * 1024  # a piece of output must fit with all that is counted with it
_PATIENCE = 2.0  # seconds that the process has for what it was given
_FLUSH = 0
_NUMBERS = {"stdout": 1, "stderr": 2}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_PIECE = 1 << 17  # no message is longer
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h


def split(given: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Bytes of the buffer, 0 where the mode is blocking; and the options of the driver itself.

    Raises ``InvalidRequest``.
    """
    rest = dict(given)
    mode = rest.pop("mode", "blocking")
    size = rest.pop("max-buffer-size", None)
    if mode not in ("blocking", "non-blocking"):
        raise InvalidRequest(f"logger: logging mode not supported: {mode}")
    if mode == "blocking":
        if size is not None:
            raise InvalidRequest(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        return 0, rest
    return (options.parse_size("max-buffer-size", size) if size else 0) or BUFFER, rest


class NonBlockingWriter:
    """See :class:`jaula.logs.protocol.LogWriter`. ``make`` opens the writer that does the work."""

    def __init__(self, make: Callable[[], LogWriter], buffer: int) -> None:
        """Raises what ``make`` raises; it is called here once to find that out."""
        make().close()
        self.dropped = 0
        self.error = ""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            size = max(buffer, _SMALLEST)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
            except PermissionError:  # without CAP_NET_ADMIN: as much as anybody may have
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
            self._worker = HelperProcess(lambda: _serve(theirs, make), (theirs.fileno(),))
        self._closed = False
        self._stuck = False  # it did not answer in time

    def write(self, stream: str, data: bytes) -> None:
        if self._closed:
            return
        message = bytes((_NUMBERS[stream],)) + data
        try:
            self._socket.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            self.dropped += len(data)
            self.error = f"cannot hand output to the log: {error.strerror}"

    def flush(self) -> None:
        """Wait until the process has written what it was given, but not for ever."""
        if self._closed or self._stuck:
            return
        self._socket.settimeout(_PATIENCE)
        try:
            self._socket.send(bytes((_FLUSH,)), socket.MSG_NOSIGNAL)
            self._stuck = not self._socket.recv(64)
        except OSError as error:
            self._stuck = True
            self.error = f"the log does not answer: {error.strerror or error}"
        finally:
            self._socket.settimeout(None)

    def poll(self) -> float | None:
        return None  # the process does that

    def close(self) -> None:
        if self._closed:
            return
        self.flush()
        self._closed = True
        self._socket.close()
        if self._stuck or not self._worker.ended(_PATIENCE):
            self._worker.kill()
            self._worker.ended(_PATIENCE)
        self._worker.close()


def _serve(theirs: socket.socket, make: Callable[[], LogWriter]) -> None:
    """The process: write what comes until the other end is closed."""
    writer = make()
    while True:
        theirs.settimeout(writer.poll())
        try:
            message = theirs.recv(_PIECE)
        except TimeoutError:
            continue
        if not message:
            break
        if message[0] == _FLUSH:
            writer.flush()
            theirs.send(b"done", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        else:
            writer.write(_NAMES[message[0]], message[1:])
    writer.close()
