"""``jaula start``."""

from __future__ import annotations

import sys

from jaula.cli.attachment import opened
from jaula.cli.client import Client, quote
from jaula.cli.detach import DetachKeys
from jaula.cli.failure import EngineError, Failure
from jaula.cli.flags import Command, Flag, Options
from jaula.cli.following import Following, ask_wait, status_of
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Start the containers; with ``-a`` or ``-i`` one of them, attached."""
    client = Client(Settings.host)
    names = options.arguments
    if options.on("attach") or options.on("interactive"):
        if len(names) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _attached(client, names[0], options)
    failed = []
    for name in names:
        try:
            client.request("POST", f"/containers/{quote(name)}/start")
            print(name)
        except EngineError as error:
            sys.stdout.flush()
            sys.stderr.write(error.message + "\n")
            failed.append(name)
    if failed:
        raise Failure("Error: failed to start containers: " + ", ".join(failed))
    return 0


def _attached(client: Client, name: str, options: Options) -> int:
    found = client.get(f"/containers/{quote(name)}/json")
    config, path = found["Config"], f"/containers/{found['Id']}"
    tty = bool(config["Tty"])
    stdin = options.on("interactive") and bool(config["OpenStdin"])
    keys = DetachKeys(options.text("detach-keys")) if stdin and tty else None
    query = (
        ("stream", True),
        ("stdin", stdin),
        ("stdout", True),
        ("stderr", True),
        ("detachKeys", options.text("detach-keys")),
    )
    connection = client.ask_hijack(path + "/attach", query)
    removed = bool(found["HostConfig"].get("AutoRemove"))
    waiting = ask_wait(client, found["Id"], "removed" if removed else "next-exit")
    opened(connection)
    waiting.response_head()
    following = Following(
        client,
        tty=tty,
        stdin=stdin,
        resize_path=path + "/resize",
        kill_path=path + "/kill" if options.on("sig-proxy", True) else "",
        keys=keys,
    )

    def start() -> None:
        client.request("POST", path + "/start")

    if following.follow(connection, start=start, waiting=waiting):
        return 0
    return status_of(client, waiting, found["Id"])


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    run,
    flags=(
        Flag("attach", "a", "bool", "Attach STDOUT and STDERR and pass signals on"),
        Flag(
            "detach-keys",
            "",
            "string",
            "Keys that detach from the container",
            default="ctrl-p,ctrl-q",
        ),
        Flag("interactive", "i", "bool", "Attach the container's STDIN"),
        Flag("sig-proxy", "", "bool", "Pass signals on to the process", default="true"),
    ),
    least=1,
    description=(
        "Starts containers that were created or have ended. With -a the command stays attached to "
        "one container and leaves with its exit status."
    ),
    examples=(("Start a shell again", "jaula start -ai work"),),
    exit_status=(("N", "with -a, the container's own"), ("1", "a container was not started")),
    see_also=("create", "run", "stop"),
    completes="container",
)
