"""Messages with descriptors over a SOCK_SEQPACKET socket."""

from __future__ import annotations

import _socket
import array
import errno
import os
from collections.abc import Sequence

MAX_MESSAGE = 1 << 17  # bytes; below the default socket buffer
MAX_DESCRIPTORS = 64


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Return two connected sockets, blocking and close-on-exec."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def send(sock: _socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one message; the descriptors stay open in this process.

    :raises OSError: when the peer is gone or the socket buffer is full.
    """
    if not fds:
        sock.send(data, _socket.MSG_NOSIGNAL)
        return
    rights = array.array("i", fds)
    sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL)


def receive(sock: _socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message and its descriptors (close-on-exec).

    Empty data means that the peer is gone.

    :raises OSError: when the message was truncated; the descriptors that it carried are closed.
    """
    control_size = _socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    data, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE, control_size, _socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMSGSIZE, "message from the peer was truncated")
    return data, list(fds)


class SocketDir:
    """A directory named by descriptor, since the address of a unix socket has only 108 bytes."""

    def __init__(self, directory: str) -> None:
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
