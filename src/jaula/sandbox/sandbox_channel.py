"""The frames between the engine and a sandboxed process: a kind, a length, bytes, descriptors.

Both ends read with a limit. The header arrives together with the descriptors of the frame.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Callable, Sequence

CALL, RESULT, FAILURE, QUERY, ANSWER, REFUSAL = b"C", b"R", b"F", b"Q", b"A", b"X"
MAX_FDS = 16
_HEADER = struct.Struct("!cI")
_CHUNK = 1 << 18  # bytes


class FrameError(Exception):
    """The other end sent something that is not a frame, or more than it may."""


def send(sock: socket.socket, kind: bytes, payload: bytes, fds: Sequence[int] = ()) -> None:
    """Send one frame.

    :raises OSError: if the other end is gone.
    """
    header = _HEADER.pack(kind, len(payload))
    if fds:
        socket.send_fds(sock, [header], fds)
    else:
        sock.sendall(header)
    if payload:
        sock.sendall(payload)


def receive(
    sock: socket.socket, limit: int, wait: Callable[[], None] = lambda: None
) -> tuple[bytes, bytes, list[int]] | None:
    """Return kind, payload and descriptors of the next frame, None at the end of the stream.

    ``wait`` is called before each read: it sets the time that is left for all of them.

    :raises FrameError: if the frame has more than ``limit`` bytes or is cut.
    """
    header = b""
    fds: list[int] = []
    try:
        while len(header) < _HEADER.size:
            wait()
            ancillary = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
            data, control, flags, _ = sock.recvmsg(
                _HEADER.size - len(header), ancillary, socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, raw in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    received.frombytes(raw[: len(raw) - len(raw) % received.itemsize])
                    fds += received
            if flags & socket.MSG_CTRUNC:
                raise FrameError("too many descriptors")
            if not data:
                if header:
                    raise FrameError("a frame is cut")
                return None
            header += data
        name, length = _HEADER.unpack(header)
        if length > limit:
            raise FrameError(f"{length} bytes, of at most {limit}")
        parts = bytearray()
        while len(parts) < length:
            wait()
            data = sock.recv(min(_CHUNK, length - len(parts)))
            if not data:
                raise FrameError("a frame is cut")
            parts += data
        return name, bytes(parts), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
