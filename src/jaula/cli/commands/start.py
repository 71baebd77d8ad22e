"""``jaula start``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers.attach_loop import (
    DETACH_KEYS,
    SDNOTIFY,
    SIG_PROXY,
    detach_keys_of,
    start_attached,
)
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Start the containers; with ``-a`` or ``-i`` start one and attach to it."""
    client = Client(Settings.host)
    names = options.arguments
    if options.text("checkpoint") and len(names) > 1:
        raise CliError("you cannot start multiple containers from a checkpoint at once")
    if options.on("attach") or options.on("interactive"):
        if len(names) > 1:
            raise CliError("you cannot start and attach multiple containers at once")
        return _attached(client, names[0], options)
    failed = []
    for name in names:
        try:
            client.request("POST", f"/containers/{quote(name)}/start", _checkpoint(options))
            print(name)
        except EngineError as error:
            sys.stdout.flush()
            sys.stderr.write(error.message + "\n")
            failed.append(name)
    if failed:
        raise CliError("Error: failed to start containers: " + ", ".join(failed))
    return 0


def _checkpoint(options: Options) -> tuple[tuple[str, str], ...]:
    """Return the query that starts a container from a checkpoint."""
    names = ("checkpoint", "checkpoint-dir")
    return tuple((name, options.text(name)) for name in names if options.text(name))


def _attached(client: Client, name: str, options: Options) -> int:
    document = client.get(f"/containers/{quote(name)}/json")
    container, config = str(document["Id"]), document["Config"]
    tty = bool(config["Tty"])
    stdin = options.on("interactive") and bool(config["OpenStdin"])

    def start() -> None:
        client.request("POST", f"/containers/{container}/start", _checkpoint(options))

    if options.is_set("sdnotify"):
        from jaula.cli.containers import systemd_service

        if (managed := systemd_service.of_start(options)) is not None:
            managed.created(client, container)
            plain_start = start

            def start() -> None:
                plain_start()
                managed.started(container)

    return start_attached(
        client,
        container,
        options,
        start,
        tty=tty,
        stdin=stdin,
        keys=detach_keys_of(options, tty=tty, stdin=stdin),
        removed=bool(document["HostConfig"].get("AutoRemove")),
    )


COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    run,
    flags=(
        Flag("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
        Flag("checkpoint", "", "string", "Restore from this checkpoint"),
        Flag("checkpoint-dir", "", "string", "Use a custom checkpoint storage directory"),
        DETACH_KEYS,
        Flag("interactive", "i", "bool", "Attach container's STDIN"),
        SDNOTIFY,
        SIG_PROXY,
    ),
    min_args=1,
    description=(
        "Starts created or exited containers. With -a the client stays attached to one "
        "container and exits with its status."
    ),
    examples=(
        ("Restart a shell and attach to it", "jaula start -ai work"),
        ("Continue from a checkpoint", "jaula start --checkpoint before-reboot web"),
    ),
    exit_status=(
        ("N", "with -a, the container's exit status"),
        ("1", "a container was not started"),
    ),
    see_also=("checkpoint create", "create", "run", "stop"),
    completes="container",
)
