"""The sockets that the API is served on: made here, or passed on by systemd."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from jaula.errors import Conflict, InvalidRequest, JaulaError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.config import EngineConfig

_FIRST_PASSED = 3  # sd_listen_fds(3)
MAX_PATH = 107  # bytes of a path, unix(7)


def inherited() -> list[socket.socket]:
    """Sockets that systemd opened for us (sd_listen_fds(3))."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for fd in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
        os.set_inheritable(fd, False)
        found.append(socket.socket(fileno=fd))
    for sock in found:
        _check_passed(sock)
    return found


def _check_passed(sock: socket.socket) -> None:
    """Only stream sockets with a path: who may connect is decided by the path's permissions.

    An abstract name has none, and every process of the network namespace could connect to it,
    containers with ``--network host`` among them (CVE-2020-15257).
    """
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise InvalidRequest(
            f"the socket that was passed on is no unix stream socket ({name!r})",
            hint="use ListenStream= with an absolute path",
        )
    if not isinstance(name, str) or not name.startswith("/"):
        raise InvalidRequest(
            "the socket that was passed on has an abstract name or none, so anyone could connect",
            hint="use ListenStream= with an absolute path",
        )


def listen_unix(config: EngineConfig) -> socket.socket:
    """The API's socket, for root and the members of one group."""
    path = config.socket
    _refuse_live(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unlink(path)
        old = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        if config.socket_group:
            import grp

            try:
                os.chown(path, 0, grp.getgrnam(config.socket_group).gr_gid)
            except KeyError:
                raise InvalidRequest(f"there is no group {config.socket_group}") from None
            os.chmod(path, 0o660)
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    except JaulaError:
        sock.close()
        raise
    return sock


def listen_tcp(config: EngineConfig) -> list[socket.socket]:
    """The TCP sockets; each is bound before the first client is let in."""
    made: list[socket.socket] = []
    for host, port in config.tcp:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            sock.listen(512)
        except OSError as error:
            for sock in made:
                sock.close()
            raise Unavailable(f"cannot listen on tcp://{host}:{port}: {error.strerror}") from None
    return made


def _refuse_live(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return  # nobody listens there
    raise Conflict(
        f"the socket {path} is in use by another engine",
        hint="stop it, or give this one another socket with --socket",
    )


def unlink(path: Path) -> None:
    """Remove a socket's path, if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
