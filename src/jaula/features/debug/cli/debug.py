"""``jaula debug``."""

from __future__ import annotations

from jaula.cli import exec_
from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers.create_body import environment
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_IMAGE = "busybox"
_NOT_FOUND = 404


def run(options: Options) -> int:
    """Run the command and exit with its status."""
    client = Client(Settings.host)
    name, *words = options.arguments
    tty = options.on("tty")
    stdin = options.on("interactive")
    if not tty and not stdin and not words:
        tty = stdin = _has_terminal()
    image = options.text("image", DEFAULT_IMAGE)
    ensure_image(client, image, quiet=options.on("quiet"))
    body: dict[str, Any] = {
        "Image": image,
        "Target": options.text("target"),
        "User": options.text("user"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "DetachKeys": options.text("detach-keys"),
        "Env": environment(options),
        "WorkingDir": options.text("workdir"),
        "Cmd": words,
    }
    container = _container(client, name)
    if container is not None and container["State"]["Running"]:
        path = f"/jaula/containers/{quote(name)}/debug"
        return exec_.attach(client, options, path, body, tty=tty, stdin=stdin)
    if options.is_set("target"):
        raise CliError(f"--target: {name} does not run")
    from jaula.features.debug.cli import debug_copy_command

    return debug_copy_command.run(client, options, name, body)


def _container(client: Client, name: str) -> dict[str, Any] | None:
    """Return the container with a name or id; None if there is none, for an image."""
    try:
        document: dict[str, Any] = client.get(f"/containers/{quote(name)}/json")
    except EngineError as error:
        if error.code != _NOT_FOUND:
            raise
        return None
    return document


def _has_terminal() -> bool:
    from os import isatty

    return isatty(0) and isatty(1)


def ensure_image(client: Client, image: str, *, quiet: bool) -> None:
    """Build or pull the toolbox image if the engine does not have it.

    :raises CliError: when that fails.
    """
    try:
        client.get(f"/images/{quote(image)}/json")
    except EngineError as error:
        if error.code != _NOT_FOUND:
            raise
    else:
        return
    if image == DEFAULT_IMAGE:
        from jaula.cli.image import build_bootstrap

        build_bootstrap(client, image, quiet=quiet)
        return
    from jaula.cli.images.pull_progress import pull

    pull(client, image, quiet=quiet, output=2)


COMMAND = Command(
    "[OPTIONS] CONTAINER|IMAGE [COMMAND] [ARG...]",
    "Run a shell with tools of its own beside the processes of a container",
    run,
    flags=(
        *exec_.PROCESS_FLAGS,
        Flag("image", "", "string", "Image with the tools", default="busybox", completes="image"),
        Flag("quiet", "q", "bool", "Suppress the progress of a missing image"),
        Flag(
            "target",
            "",
            "string",
            "Show the files of this process (pid in the container, or name of its program)",
        ),
    ),
    min_args=1,
    interspersed=False,
    description=(
        "The container needs no shell and no tools. The session has its namespaces, user, "
        "capabilities, system call filter and limits, and no more. It sees the container's files "
        "at /, and the tools of the image, read-only, at /.debug, which are first in PATH. "
        "Nothing of the session is left when it ends. Without COMMAND it is a shell. Of a stopped "
        "container or an image it sees a copy, without network, and all changes are discarded."
    ),
    examples=(
        ("Look into a container without a shell", "jaula debug web"),
        ("Run one tool", "jaula debug web netstat -tln"),
        ("Use the tools of another image", "jaula debug --image debian web bash"),
        ("Look into an image", "jaula debug example/app ls -l /"),
    ),
    exit_status=exec_.EXIT_STATUS,
    see_also=("exec", "why", "top", "cp"),
    completes="container",
)
