"""``ssh://user@host``: the engine of another host, through a command that joins its socket there.

Follows docker/cli ``cli/connhelper``: ``ssh`` runs ``jaula system dial-stdio`` on the other host,
whose standard streams are the connection. Who may log in there, and how, is ssh's; it has no
terminal to ask for a password.
"""

from __future__ import annotations

import _socket
import os
from typing import NamedTuple

from jaula.cli.errors import Unreachable

OPTIONS = ("-T", "-o", "ConnectTimeout=30")


class SshTarget(NamedTuple):
    """Where to log in; ``socket`` is a path there, empty for that host's own engine."""

    host: str
    user: str = ""
    port: str = ""
    socket: str = ""


def parse(text: str) -> SshTarget:
    """``[user@]host[:port][/path]``. Raises Unreachable for what ssh could take for an option."""
    where, slash, path = text.partition("/")
    user, at, where = where.rpartition("@")
    host, colon, port = where, "", ""
    if not where.endswith("]") and ":" in where:
        host, colon, port = where.rpartition(":")
    host = host.strip("[]")
    wrong = (
        not host
        or host.startswith("-")
        or user.startswith("-")
        or ":" in user  # a password has no place here
        or (at and not user)
        or (colon and not port.isdigit())
    )
    if wrong:
        raise Unreachable(f"ssh://{text} is no ssh://[user@]host[:port][/path of a socket]")
    return SshTarget(host, user, port, f"/{path}" if slash and path else "")


def words(place: SshTarget) -> list[str]:
    """The command line."""
    found = ["ssh", *OPTIONS]
    found += ["-l", place.user] if place.user else []
    found += ["-p", place.port] if place.port else []
    found += ["--", place.host, "jaula"]
    if place.socket:
        found += ["-H", _quoted(f"unix://{place.socket}")]  # a shell reads it there
    return [*found, "system", "dial-stdio"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def connect(text: str) -> _socket.socket:
    """Start ssh; the near end of its standard streams. Raises Unreachable, ``OSError``."""
    line = words(parse(text))
    ours, theirs = _socket.socketpair()
    try:
        os.posix_spawnp(
            line[0],
            line,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1),
            ],
            setsid=True,  # a ^C is for us; ssh ends when we hang up
        )
    except FileNotFoundError:
        ours.close()
        raise Unreachable("ssh is not installed, or not in PATH") from None
    finally:
        theirs.close()
    return ours
