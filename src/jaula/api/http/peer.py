"""Who is at the other end of a connection, as the kernel or a certificate has it.

Source: unix(7), ``SO_PEERCRED``; ``SO_PEERGROUPS`` since Linux 4.13 (asm-generic/socket.h).

Facts about peers: the ids are those of the moment of ``connect``, translated into the user
namespace of the one who asks; an id without a translation is the overflow id, 65534. A process of
a container that was given the socket shows up with its id on the host. The process may have ended
and its number be another's by now: only a pidfd of it (``SO_PEERPIDFD``, Linux 6.5) proves that
what /proc says of the number is about the peer.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterable
from hashlib import sha256

from jaula.spec.api_params import Origin, Peer, Remote

FINGERPRINT = "sha256:"
_LONGEST = 64  # characters of a common name: RFC 5280, appendix A.1, ub-common-name
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_UNSET = 2**32 - 1  # (uid_t) -1: nobody logged in
_USUAL, _MOST = 64, 65536  # groups; the second is NGROUPS_MAX


Subject = Iterable[Iterable[tuple[str, str]]]


def of(sock: socket.socket) -> Origin:
    """The peer of a connected socket; raises ``OSError``."""
    return _process(sock) if sock.family == socket.AF_UNIX else Remote(address_of(sock))


def certified(address: str, subject: Subject, certificate: bytes) -> Remote:
    """Who has shown this certificate (DER), which was verified.

    A subject with several common names, or with one that is none to print or that could be taken
    for a fingerprint, has no name.
    """
    names = [value for part in subject for key, value in part if key == "commonName"]
    name = names[0] if len(names) == 1 else ""
    if not name.isprintable() or len(name) > _LONGEST or name.startswith(FINGERPRINT):
        name = ""
    return Remote(address, name, FINGERPRINT + sha256(certificate).hexdigest())


def address_of(sock: socket.socket) -> str:
    """``host:port`` of a TCP peer."""
    host, port = sock.getpeername()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _process(sock: socket.socket) -> Peer:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", credentials)
    groups = _groups(sock)
    try:
        pidfd = struct.unpack("i", sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
    except OSError:
        return Peer(pid, uid, gid, groups)  # an older kernel, or the process has ended
    try:
        login, command = _login_uid(pid), _read(f"/proc/{pid}/comm")
        alive = select.poll()
        alive.register(pidfd, select.POLLIN)
        if alive.poll(0):
            return Peer(pid, uid, gid, groups)
    finally:
        os.close(pidfd)
    return Peer(pid, uid, gid, groups, login, command)


def _login_uid(pid: int) -> int | None:
    text = _read(f"/proc/{pid}/loginuid")
    return int(text) if text.isdigit() and int(text) != _UNSET else None


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""  # it has ended, or the kernel keeps no such file
    try:
        return os.read(fd, 64).decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _groups(sock: socket.socket) -> tuple[int, ...]:
    for room in (_USUAL, _MOST):
        try:
            data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, room * 4)
        except OSError as error:
            if error.errno == errno.ERANGE:
                continue
            if error.errno in (errno.ENOPROTOOPT, errno.ENODATA):
                return ()
            raise
        return struct.unpack(f"{len(data) // 4}I", data)
    return ()
