"""Whether an engine that has not answered yet is alive, starts, or cannot start.

Source: systemd.socket(5), systemd.service(5). systemd listens on the socket of the engine. While
``jaula.service`` starts, fails and is started again, connections are accepted into the backlog, and
no request is answered. A request may also take long, such as ``POST /containers/ID/wait``. So a
client that has waited for :data:`INTERVAL` asks the engine for ``GET /_ping``, which is answered at
once, and systemd for the state of the service.
"""

from __future__ import annotations

import os
import select
from time import monotonic

from jaula.cli.cli_errors import Unreachable
from jaula.cli.client import engine_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable

INTERVAL = 5.0  # seconds between two checks
START_LIMIT = 330.0  # seconds: TimeoutStartSec= of jaula.service, and some more
UNIT = "jaula.service"
_PING = b"GET /_ping HTTP/1.1\r\nHost: jaula\r\nConnection: close\r\n\r\n"
_SYSTEMCTL_TIMEOUT = 10.0  # seconds
_PROPERTIES = ("ActiveState", "SubState", "NRestarts", "Result")
_FAILING = ("auto-restart", "auto-restart-queued", "failed")


def wait(descriptor: int, events: int, host: str, connect: Callable[[], _socket.socket]) -> None:
    """Wait until a connection is ready for ``events`` of poll(2), or the engine answers a ping.

    ``host`` is the address of the engine, and ``connect`` returns another connection to it.

    :raises Unreachable: when the engine cannot start, or does not answer in :data:`START_LIMIT`.
    """
    poll = select.poll()
    poll.register(descriptor, events)
    begin = monotonic()
    restarts = ""
    while not _answers(connect):
        state = service_state(host)
        restarts = restarts or state.get("NRestarts", "")
        if reason := failure(state, restarts):
            raise Unreachable(
                f"the jaula engine at {host} does not start: {UNIT} {reason} "
                f"(see journalctl -u {UNIT})"
            )
        if monotonic() - begin > START_LIMIT:
            raise Unreachable(
                f"the jaula engine at {host} does not answer after {START_LIMIT:.0f} "
                "seconds: a program listens on the socket and does not serve it"
            )
        if poll.poll(int(INTERVAL * 1000)):
            return


def failure(state: dict[str, str], restarts: str) -> str:
    """Return why a service cannot start, '' if it may still. Pure.

    ``state`` has properties of the service; ``restarts`` is the number of its restarts before.
    """
    if state.get("SubState") not in _FAILING and state.get("NRestarts", restarts) == restarts:
        return ""
    result = state.get("Result", "")
    return f"fails with the result {result}" if result not in ("", "success") else "fails"


def service_state(host: str) -> dict[str, str]:
    """Return properties of the service of the engine at ``host``.

    There are none without systemd, and of a socket that is not the default one.
    """
    import subprocess

    if host != engine_address.default_host() or not os.path.isdir("/run/systemd/system"):
        return {}
    scope = ["--system"] if host == engine_address.SYSTEM_HOST else ["--user"]
    command = ["systemctl", *scope, "show", UNIT, f"--property={','.join(_PROPERTIES)}"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SYSTEMCTL_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}  # the limit of time remains
    return parse(done.stdout)


def parse(text: str) -> dict[str, str]:
    """Return the properties in the output of ``systemctl show``. Pure."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, equals, value in pairs if equals and name in _PROPERTIES}


def _answers(connect: Callable[[], _socket.socket]) -> bool:
    try:
        connection = connect()
    except OSError:
        return False  # the first connection reports it
    try:
        connection.sendall(_PING)
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(int(INTERVAL * 1000))) and bool(connection.recv(1))
    except OSError:
        return False
    finally:
        connection.close()
