"""``mode=non-blocking`` for drivers that write files: a helper process writes the files.

A write blocks on a disk that hangs or is slow. In this mode only the helper process blocks, and the
container continues. Output that the helper has not read yet waits in a socket buffer of
``max-buffer-size`` bytes. Output beyond that is dropped, as by Docker's ring buffer; a line in the
log says how many lines are missing.

Source: docker docs "Configure logging drivers", "Configure the delivery mode".

Facts about unix(7): a message of a SOCK_SEQPACKET socket is sent whole or not at all, so no entry
is ever cut. The kernel adds its own overhead to the size of a buffer. For short messages that is
several times the text, so fewer bytes fit than ``max-buffer-size`` says.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from jaula.logs.helper import HelperProcess
from jaula.logs.log_driver import FileLogWriter

_MIN_BUFFER = 256 * 1024  # bytes; a chunk of output must fit with the kernel's overhead
_TIMEOUT = 2.0  # seconds that the helper has to write what it received
_FLUSH, _LOST = 0, 3
_COUNTS = struct.Struct("QQ")  # lines and bytes that were dropped
_REASON = "the log was slower than the output, and its buffer was full"
_STREAM_NUMBERS = {"stdout": 1, "stderr": 2}
_STREAM_NAMES = {number: name for name, number in _STREAM_NUMBERS.items()}
_MAX_MESSAGE = 1 << 17  # bytes
_SO_SNDBUFFORCE = 32  # asm-generic/socket.h


class NonBlockingWriter:
    """A :class:`jaula.logs.log_driver.LogWriter`. ``make`` opens the writer of the driver."""

    def __init__(self, make: Callable[[], FileLogWriter], buffer: int) -> None:
        """Start the helper. Call ``make`` once in this process, to raise its errors here.

        ``buffer`` is the size of the socket buffer in bytes.
        """
        make().close()
        self.dropped = 0
        self.error = ""
        self._socket, helper_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with helper_socket:
            size = max(buffer, _MIN_BUFFER)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, size)
            except PermissionError:  # without CAP_NET_ADMIN: up to the limit of every process
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
            self._helper = HelperProcess(
                lambda: _serve(helper_socket, make), (helper_socket.fileno(),)
            )
        self._closed = False
        self._lost = 0, 0  # lines and bytes that the helper does not know of
        self._stuck = False  # the helper did not answer in time

    def write(self, stream: str, data: bytes) -> None:
        if self._closed:
            return
        if self._lost != (0, 0) and self._send(_LOST, _COUNTS.pack(*self._lost)):
            self._lost = 0, 0
        if self._lost != (0, 0) or not self._send(_STREAM_NUMBERS[stream], data):
            lines, size = self._lost
            self._lost = lines + data.count(b"\n"), size + len(data)
            self.dropped += len(data)

    def _send(self, kind: int, data: bytes) -> bool:
        """Send a message to the helper. Return whether the buffer had space for it."""
        try:
            self._socket.send(bytes((kind,)) + data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            self.error = f"cannot hand output to the log: {error.strerror}"
            return False
        return True

    def flush(self) -> None:
        """Wait up to two seconds until the helper has written what it received."""
        if self._closed or self._stuck:
            return
        self._socket.settimeout(_TIMEOUT)
        try:
            if self._lost != (0, 0):
                message = bytes((_LOST,)) + _COUNTS.pack(*self._lost)
                self._socket.send(message, socket.MSG_NOSIGNAL)
                self._lost = 0, 0
            self._socket.send(bytes((_FLUSH,)), socket.MSG_NOSIGNAL)
            self._stuck = not self._socket.recv(64)
        except OSError as error:
            self._stuck = True
            self.error = f"the log does not answer: {error.strerror or error}"
        finally:
            self._socket.settimeout(None)

    def poll(self) -> float | None:
        return None  # the helper polls its own writer

    def reopen(self) -> None:
        pass  # the drivers that have this mode rotate their own files

    def close(self) -> None:
        if self._closed:
            return
        self.flush()
        self._closed = True
        self._socket.close()
        if self._stuck or not self._helper.exited(_TIMEOUT):
            self._helper.kill()
            self._helper.exited(_TIMEOUT)
        self._helper.close()


def _serve(connection: socket.socket, make: Callable[[], FileLogWriter]) -> None:
    """Run the helper: write what arrives until the other end is closed."""
    writer = make()
    while True:
        connection.settimeout(writer.poll())
        try:
            message = connection.recv(_MAX_MESSAGE)
        except TimeoutError:
            continue
        if not message:
            break
        if message[0] == _FLUSH:
            writer.flush()
            connection.send(b"done", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        elif message[0] == _LOST:
            lines, size = _COUNTS.unpack(message[1:])
            writer.lose(lines, size, _REASON)
        else:
            writer.write(_STREAM_NAMES[message[0]], message[1:])
    writer.close()
