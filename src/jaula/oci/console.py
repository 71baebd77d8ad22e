"""Pass descriptors and the pid of a new process to the caller.

The terminal's master is sent over a stream socket with SCM_RIGHTS, with a name (runc's
``--console-socket``, docs/terminals.md there); a pidfd in the same way (``--pidfd-socket``). A pid
file holds the host pid without a newline, and is written atomically.
"""

from __future__ import annotations

import _socket
import array
import os

from jaula.errors import RuntimeFailure


def send(path: str, master: int) -> None:
    """Send a terminal's master and close it here.

    :raises RuntimeFailure: when the socket cannot be reached.
    """
    try:
        _send("console socket", path, master, b"/dev/ptmx")
    finally:
        os.close(master)


def send_pidfd(path: str, pid: int) -> None:
    """Send a pidfd of the process.

    :raises RuntimeFailure: when the socket cannot be reached.
    """
    pidfd = os.pidfd_open(pid)
    try:
        _send("pidfd socket", path, pidfd, b"pidfd")
    finally:
        os.close(pidfd)


def _send(kind: str, path: str, fd: int, name: bytes) -> None:
    peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        peer.connect(path)
        rights = array.array("i", (fd,))
        peer.sendmsg([name], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    except OSError as error:
        raise RuntimeFailure(f"{kind} {path}: {error.strerror or error}") from error
    finally:
        peer.close()


def write_pid(path: str, pid: int) -> None:
    """Write a pid file atomically."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o666)
    try:
        os.write(fd, b"%d" % pid)
    finally:
        os.close(fd)
    os.rename(temporary, path)
