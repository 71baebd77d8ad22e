"""``jaula attach``."""

from __future__ import annotations

import sys

from jaula.cli.attachment import opened
from jaula.cli.client import Client, quote
from jaula.cli.commands.run import check_terminal
from jaula.cli.detach import DetachKeys
from jaula.cli.failure import Failure
from jaula.cli.flags import Command, Flag, Options
from jaula.cli.following import Following, ask_wait, status_of
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Attach to a running container until it ends or the person detaches."""
    client = Client(Settings.host)
    name = options.arguments[0]
    found = client.get(f"/containers/{quote(name)}/json")
    state = found["State"]
    if not state["Running"]:
        raise Failure("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise Failure("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise Failure("You cannot attach to a restarting container, wait until it is running")
    tty = bool(found["Config"]["Tty"])
    stdin = bool(found["Config"]["OpenStdin"]) and not options.on("no-stdin")
    if tty and stdin:
        check_terminal()
    keys = DetachKeys(options.text("detach-keys")) if stdin and tty else None
    path = f"/containers/{found['Id']}"
    waiting = ask_wait(client, found["Id"], "")
    waiting.response_head()
    query = (
        ("stream", True),
        ("stdin", stdin),
        ("stdout", True),
        ("stderr", True),
        ("detachKeys", options.text("detach-keys")),
    )
    connection = opened(client.ask_hijack(path + "/attach", query))
    following = Following(
        client,
        tty=tty,
        stdin=stdin,
        resize_path=path + "/resize",
        kill_path=path + "/kill" if options.on("sig-proxy", True) else "",
        keys=keys,
    )
    if following.follow(connection, waiting=waiting, redraw=True):
        sys.stderr.write("read escape sequence\n")
        return 0
    return status_of(client, waiting, found["Id"])


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    run,
    flags=(
        Flag(
            "detach-keys",
            "",
            "string",
            "Keys that detach from the container",
            default="ctrl-p,ctrl-q",
        ),
        Flag("no-stdin", "", "bool", "Do not attach STDIN"),
        Flag("sig-proxy", "", "bool", "Pass signals on to the process", default="true"),
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
