"""``jaula attach``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.client.hijack import check_hijacked
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers.attach_loop import (
    DETACH_KEYS,
    SIG_PROXY,
    attach_container,
    detach_keys_of,
    send_attach,
    send_wait,
    wait_status,
)
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Attach to a running container until it ends or the user detaches."""
    client = Client(Settings.host)
    name = options.arguments[0]
    document = client.get(f"/containers/{quote(name)}/json")
    state = document["State"]
    if not state["Running"]:
        raise CliError("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CliError("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CliError("You cannot attach to a restarting container, wait until it is running")
    tty = bool(document["Config"]["Tty"])
    stdin = bool(document["Config"]["OpenStdin"]) and not options.on("no-stdin")
    if tty and stdin:
        from jaula.cli.output.user_terminal import check_terminal

        check_terminal()
    keys = detach_keys_of(options, tty=tty, stdin=stdin)
    container = str(document["Id"])
    waiting = send_wait(client, container, "")
    waiting.response_head()
    connection = check_hijacked(send_attach(client, container, options, stdin=stdin))
    if attach_container(
        client, container, options, connection, waiting, tty=tty, stdin=stdin, keys=keys
    ):
        sys.stderr.write("read escape sequence\n")
        return 0
    return wait_status(client, waiting, container)


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    run,
    flags=(
        DETACH_KEYS,
        Flag("no-stdin", "", "bool", "Do not attach STDIN"),
        SIG_PROXY,
    ),
    min_args=1,
    max_args=1,
    description=(
        "Connects the terminal to the streams of a container. Several clients may be attached "
        "at once. The detach keys, control-P control-Q by default, leave the container "
        "running."
    ),
    examples=(("Attach again after detaching", "jaula attach work"),),
    exit_status=(("N", "the container's own exit status"), ("0", "detached")),
    see_also=("run", "exec", "logs"),
    completes="container",
)
