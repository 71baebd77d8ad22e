"""``jaula attach``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client, quote
from jaula.cli.client.hijack import check_hijacked
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers.attach import (
    DETACH_KEYS,
    SIG_PROXY,
    attach_container,
    detach_keys_of,
    send_attach,
    send_wait,
    wait_status,
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
    keys = detach_keys_of(options, tty=tty, stdin=stdin)
    container = str(found["Id"])
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
        "Joins the terminal to what runs in the container. Several may be attached at once. The "
        "detach keys, control-P control-Q unless others are named, leave the container running."
    ),
    examples=(("Go back to a container that was detached from", "jaula attach work"),),
    exit_status=(("N", "the container's own exit status"), ("0", "detached")),
    see_also=("run", "exec", "logs"),
    completes="container",
)
