"""The sockets that the API is served on: created here, or inherited from systemd."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from jaula.errors import Conflict, InvalidRequest, JaulaError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jaula.config import EngineConfig

_FIRST_INHERITED = 3  # sd_listen_fds(3)
MAX_PATH = 107  # bytes, unix(7)


def inherited() -> list[socket.socket]:
    """Return the sockets that systemd opened for this process (sd_listen_fds(3))."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    inherited_sockets = []
    for fd in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
        os.set_inheritable(fd, False)
        inherited_sockets.append(socket.socket(fileno=fd))
    for sock in inherited_sockets:
        _check_inherited(sock)
    return inherited_sockets


def _check_inherited(sock: socket.socket) -> None:
    """Accept only stream sockets with a path, whose permissions decide who can connect.

    An abstract name has no permissions: every process of the network namespace could connect to it,
    including containers with ``--network host`` (CVE-2020-15257).
    """
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise InvalidRequest(
            f"the inherited socket is not a unix stream socket ({name!r})",
            hint="use ListenStream= with an absolute path",
        )
    if not isinstance(name, str) or not name.startswith("/"):
        raise InvalidRequest(
            "the inherited socket has no path, so every process could connect to it",
            hint="use ListenStream= with an absolute path",
        )


def listen_unix(path: Path, group: str | None = None) -> socket.socket:
    """Open a unix socket, for root and the members of one group.

    :raises Conflict: when another engine listens on it.
    :raises InvalidRequest: when the group does not exist.
    :raises Unavailable: when the socket cannot be opened.
    """
    _check_unused(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unlink(path)
        old = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        if group:
            import grp

            try:
                os.chown(path, 0, grp.getgrnam(group).gr_gid)
            except KeyError:
                raise InvalidRequest(f"the group {group} does not exist") from None
            os.chmod(path, 0o660)
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    except JaulaError:
        sock.close()
        raise
    return sock


def listen_again(path: str, group: str | None) -> socket.socket:
    """Open a unix socket whose path another program removed. The errors are those of the first."""
    from pathlib import Path

    sock = listen_unix(Path(path), group)
    sock.setblocking(False)
    return sock


def listen_tcp(config: EngineConfig) -> list[socket.socket]:
    """Open the TCP sockets: all of them before a client can connect to one.

    :raises Unavailable: when a socket cannot be opened.
    """
    return listen_addresses(config.tcp)


def listen_addresses(addresses: Iterable[tuple[str, int]]) -> list[socket.socket]:
    """Open a TCP socket on each address.

    :raises Unavailable: when one cannot be opened; none is open then.
    """
    tcp_sockets: list[socket.socket] = []
    for host, port in addresses:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            tcp_sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            sock.listen(512)
        except OSError as error:
            for sock in tcp_sockets:
                sock.close()
            raise Unavailable(f"cannot listen on tcp://{host}:{port}: {error.strerror}") from None
    return tcp_sockets


def _check_unused(path: Path) -> None:
    if _is_served(path):
        raise Conflict(
            f"the socket {path} is in use by another engine",
            hint="stop it, or choose another socket with --socket",
        )


def _is_served(path: Path) -> bool:
    """Return whether a process listens on a socket, even if it accepts no connection now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:  # too many wait for it, unix(7)
            return True
        except OSError:
            return False
    return True


def remove(path: Path, own: Iterable[socket.socket]) -> None:
    """Close the sockets of a path and remove it, unless another engine serves on it since."""
    for sock in own:
        sock.close()
    if not _is_served(path):
        unlink(path)


def unlink(path: Path) -> None:
    """Remove a socket's path if it exists."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
