"""Sockets that a service manager has opened for this process, for a container (sd_listen_fds(3)).

The client passes them over the engine's unix socket (SCM_RIGHTS) before the start. The program gets
them as descriptors from 3 on, with the variables that say so.
"""

from __future__ import annotations

import _socket
from posix import getpid

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.hijack import check_hijacked
from jaula.cli.environ import text as environ_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.client.api_client import Client

FIRST = 3
_MAX = 64  # descriptors, of the engine
_INIT, _AFTER_INIT = 1, 2  # process ids of the program in its container


def count() -> int:
    """Return the number of descriptors that are meant for this process.

    :raises CliError: when ``LISTEN_FDS`` is invalid.
    """
    number = environ_text("LISTEN_FDS")
    if not number or environ_text("LISTEN_PID") != str(getpid()):
        return 0
    if not (number.isascii() and number.isdigit() and len(number) < 5 and int(number) <= _MAX):
        raise CliError(f"LISTEN_FDS: {number[:16]!r} must be a number up to {_MAX}", status=125)
    return int(number)


def variables(number: int, *, init: bool) -> list[str]:
    """Return the variables of the program; ``init`` is set if another program starts it."""
    result = [f"LISTEN_FDS={number}", f"LISTEN_PID={_AFTER_INIT if init else _INIT}"]
    if names := environ_text("LISTEN_FDNAMES"):
        result.append(f"LISTEN_FDNAMES={names}")
    return result


def send(client: Client, container: str, number: int) -> None:
    """Give the descriptors to the program of the next start of a container.

    :raises CliError: when the engine is not on this host.
    :raises EngineError: when it refuses.
    """
    if not client.address.is_unix:
        raise CliError("LISTEN_FDS: sockets need an engine at a unix socket", status=125)
    connection = check_hijacked(client.send_hijack(f"/containers/{container}/descriptors"))
    fds = b"".join(fd.to_bytes(4, "little") for fd in range(FIRST, FIRST + number))
    control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)]
    answer = b""
    try:
        connection.socket.sendmsg([b"\0"], control)
        while data := connection.socket.recv(4096):
            answer += data
    except OSError as error:
        raise CliError(f"LISTEN_FDS: {error.strerror}", status=125) from None
    finally:
        connection.close()
    if answer != b"ok\n":
        reason = answer.decode("utf-8", "replace").strip() or "the engine gave no answer"
        raise EngineError(400, f"LISTEN_FDS: {reason}")
