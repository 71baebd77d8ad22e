"""A debug session with the files of a stopped container or of an image.

The engine creates a container with a copy of the files, and removes it when the connection of the
request that created it ends: also if this process is killed.
"""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Options
from jaula.cli.containers.attach_loop import detach_keys_of, start_attached
from jaula.cli.run import STATUS_BY_WORDS
from jaula.spec.fast_json import decode_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(client: Client, options: Options, name: str, request: dict[str, Any]) -> int:
    """Run the session and return the status of its command.

    ``request`` is that of a session in a running container.

    :raises CliError: when there is no such container or image, or the program does not start.
    """
    body = dict(request)
    if request["Tty"]:
        from jaula.cli.output.user_terminal import console_size

        if size := console_size():
            body["ConsoleSize"] = size
    answer = client.open("POST", "/jaula/debug-copies", (("from", name),), body)
    try:
        session = str(next(decode_lines(answer.chunks()))["Id"])

        def start() -> None:
            try:
                client.request("POST", f"/containers/{session}/start")
            except EngineError as error:
                statuses = (s for words, s in STATUS_BY_WORDS if words in error.reason)
                raise CliError(error.message, status=next(statuses, 1)) from None

        return start_attached(
            client,
            session,
            options,
            start,
            tty=request["Tty"],
            stdin=request["AttachStdin"],
            stdout=True,
            stderr=True,
            keys=detach_keys_of(options, tty=request["Tty"], stdin=request["AttachStdin"]),
            removed=True,
        )
    finally:
        answer.close()
