"""``ssh://user@host``: connect to the engine of another host through ssh.

Follows docker/cli ``cli/connhelper``: ``ssh`` runs ``jaula system dial-stdio`` on the other host,
and its standard streams are the connection. ssh authenticates the user. It has no terminal to
prompt for a password.
"""

from __future__ import annotations

import _socket
import os
from typing import NamedTuple

from jaula.cli.cli_errors import Unreachable

OPTIONS = ("-T", "-o", "ConnectTimeout=30")


class SshTarget(NamedTuple):
    """Where to log in; ``socket`` is a path on that host, empty for its default socket."""

    host: str
    user: str = ""
    port: str = ""
    socket: str = ""


def parse(text: str) -> SshTarget:
    """Parse ``[user@]host[:port][/path]``.

    :raises Unreachable: when the text is invalid, or ssh could take it for an option.
    """
    address, slash, path = text.partition("/")
    user, at, address = address.rpartition("@")
    host, colon, port = address, "", ""
    if not address.endswith("]") and ":" in address:
        host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    invalid = (
        not host
        or host.startswith("-")
        or user.startswith("-")
        or ":" in user  # a password is not allowed
        or (at and not user)
        or (colon and not port.isdigit())
    )
    if invalid:
        raise Unreachable(
            f"ssh://{text} is not a valid ssh://[user@]host[:port][/path of a socket]"
        )
    return SshTarget(host, user, port, f"/{path}" if slash and path else "")


def words(target: SshTarget) -> list[str]:
    """Return the argument list of ssh."""
    arguments = ["ssh", *OPTIONS]
    arguments += ["-l", target.user] if target.user else []
    arguments += ["-p", target.port] if target.port else []
    arguments += ["--", target.host, "jaula"]
    if target.socket:
        arguments += [
            "-H",
            _quoted(f"unix://{target.socket}"),
        ]  # a shell on the other host parses it
    return [*arguments, "system", "dial-stdio"]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def connect(text: str) -> _socket.socket:
    """Start ssh and return the near end of its standard streams.

    :raises Unreachable: when ssh is not installed or the address is invalid.
    :raises OSError: when ssh cannot be started.
    """
    line = words(parse(text))
    local_end, remote_end = _socket.socketpair()
    try:
        os.posix_spawnp(
            line[0],
            line,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, remote_end.fileno(), 0),
                (os.POSIX_SPAWN_DUP2, remote_end.fileno(), 1),
            ],
            setsid=True,  # ^C must not reach ssh; it ends when the socket is closed
        )
    except FileNotFoundError:
        local_end.close()
        raise Unreachable("ssh is not installed, or not in PATH") from None
    finally:
        remote_end.close()
    return local_end
