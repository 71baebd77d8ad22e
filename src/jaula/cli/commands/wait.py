"""``jaula wait``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import EngineError
from jaula.cli.client.api_client import Client, checked, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.containers.attach_loop import send_wait, wait_status
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Wait for each container in turn; 1 if one does not exist."""
    client = Client(Settings.host)
    result = 0
    for name in options.arguments:
        try:
            waiting = send_wait(client, quote(name), "")
            checked(waiting.response_head())
            print(wait_status(client, waiting, quote(name)), flush=True)
        except EngineError as error:
            sys.stderr.write(error.message + "\n")
            result = 1
    return result


COMMAND = Command(
    "CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    run,
    min_args=1,
    description="Returns at once for a container that is not running.",
    examples=(("Wait for a job", "jaula wait job"),),
    see_also=("run", "stop"),
    completes="container",
)
