"""``jaula attach``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client, quote
from jaula.cli.client.hijack import opened
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers.attach import (
    DETACH_KEYS,
    SIG_PROXY,
    ask_attach,
    ask_wait,
    follow_container,
    keys_of,
    status_of,
)
from jaula.cli.errors import CliError
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Attach to a running container until it ends or the person detaches."""
    client = Client(Settings.host)
    name = options.arguments[0]
    found = client.get(f"/containers/{quote(name)}/json")
    state = found["State"]
    if not state["Running"]:
        raise CliError("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CliError("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CliError("You cannot attach to a restarting container, wait until it is running")
    tty = bool(found["Config"]["Tty"])
    stdin = bool(found["Config"]["OpenStdin"]) and not options.on("no-stdin")
    if tty and stdin:
        from jaula.cli.output.terminal import check_terminal

        check_terminal()
    keys = keys_of(options, tty=tty, stdin=stdin)
    container = str(found["Id"])
    waiting = ask_wait(client, container, "")
    waiting.response_head()
    connection = opened(ask_attach(client, container, options, stdin=stdin))
    if follow_container(
        client, container, options, connection, waiting, tty=tty, stdin=stdin, keys=keys
    ):
        sys.stderr.write("read escape sequence\n")
        return 0
    return status_of(client, waiting, container)


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    run,
    flags=(
        DETACH_KEYS,
        Flag("no-stdin", "", "bool", "Do not attach STDIN"),
        SIG_PROXY,
    ),
    least=1,
    most=1,
    description=(
        "Joins the terminal to what runs in the container. Several may be attached at once. The "
        "detach keys, control-P control-Q unless others are named, leave the container running."
    ),
    examples=(("Go back to a container that was detached from", "jaula attach work"),),
    exit_status=(("N", "the container's own exit status"), ("0", "detached")),
    see_also=("run", "exec", "logs"),
    completes="container",
)
