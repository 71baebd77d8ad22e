"""A SOCK_SEQPACKET socket that carries documents and descriptors."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence

from jaula.runtime.messages import MAX_DESCRIPTORS, MAX_MESSAGE


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, close-on-exec, blocking."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one document; the descriptors stay open here. Raises ``OSError``."""
    if not fds:
        sock.send(data, socket.MSG_NOSIGNAL)
        return
    rights = array.array("i", fds)
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One document and its descriptors (close-on-exec); empty data means that the peer is gone.

    A truncated message closes what it carried and raises ``OSError``.
    """
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
    data, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError(90, "message from the peer was truncated")
    return data, list(fds)


class Place:
    """A directory named by descriptor, since a socket's address has only 108 bytes."""

    def __init__(self, directory: str) -> None:
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
