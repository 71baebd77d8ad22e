"""The process at the other end of a unix socket.

Source of the peer: unix(7), ``SO_PEERCRED``; ``SO_PEERGROUPS`` since Linux 4.13
(asm-generic/socket.h).

Facts about peers: the ids are those at the time of ``connect``, translated into the user namespace
of the reader. An id without a translation is the overflow id, 65534. A process in a container that
has the socket appears with its id on the host. The process may have ended and its pid be reused:
only a pidfd of the peer (``SO_PEERPIDFD``, Linux 6.5) proves that /proc/PID is about the peer.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from jaula.spec.api_params import Peer

_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_UNSET_UID = 2**32 - 1  # (uid_t) -1: no login
_COMMON_GROUPS, _MAX_GROUPS = 64, 65536  # the second is NGROUPS_MAX


def peer_process(sock: socket.socket) -> Peer:
    """Return the process that connected a unix socket."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", credentials)
    groups = _peer_groups(sock)
    try:
        pidfd = struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
    except OSError:
        return Peer(pid, uid, gid, groups)  # the kernel is older, or the process has ended
    try:
        login, command = _login_uid(pid), _read_line(f"/proc/{pid}/comm")
        alive = select.poll()
        alive.register(pidfd, select.POLLIN)
        if alive.poll(0):
            return Peer(pid, uid, gid, groups)
    finally:
        os.close(pidfd)
    return Peer(pid, uid, gid, groups, login, command)


def _login_uid(pid: int) -> int | None:
    text = _read_line(f"/proc/{pid}/loginuid")
    return int(text) if text.isdigit() and int(text) != _UNSET_UID else None


def _read_line(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""  # the process has ended, or the kernel has no such file
    try:
        return os.read(fd, 64).decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _peer_groups(sock: socket.socket) -> tuple[int, ...]:
    for count in (_COMMON_GROUPS, _MAX_GROUPS):
        try:
            data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, count * 4)
        except OSError as error:
            if error.errno == errno.ERANGE:
                continue
            if error.errno in (errno.ENOPROTOOPT, errno.ENODATA):
                return ()
            raise
        return struct.unpack(f"{len(data) // 4}I", data)
    return ()
