"""``jaula exec``."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.client.hijack import check_hijacked
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers.attach_loop import AttachLoop, detach_keys_of
from jaula.cli.containers.create_body import environment
from jaula.cli.containers.hint import print_hint
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_POLLS = 200  # of an exec whose streams have ended, 10 ms apart


def run(options: Options) -> int:
    """Run the command and exit with its status."""
    client = Client(Settings.host)
    name, *words = options.arguments
    tty, detach = options.on("tty"), options.on("detach")
    stdin = options.on("interactive") and not detach
    body: dict[str, Any] = {
        "User": options.text("user"),
        "Privileged": options.on("privileged"),
        "Tty": tty,
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Detach": detach,
        "DetachKeys": options.text("detach-keys"),
        "Env": environment(options),
        "WorkingDir": options.text("workdir"),
        "Cmd": words,
    }
    path = f"/containers/{quote(name)}/exec"
    status = attach(client, options, path, body, tty=tty, stdin=stdin, detach=detach)
    print_hint(status, f"jaula why {name} -- {words[0]} ...")
    return status


def attach(
    client: Client,
    options: Options,
    path: str,
    body: dict[str, Any],
    *,
    tty: bool,
    stdin: bool,
    detach: bool = False,
) -> int:
    """Create an exec at ``path``, start it, and return its status; 0 after the detach keys.

    :raises CliError: when the engine refuses.
    """
    if tty and stdin:
        from jaula.cli.output.user_terminal import check_terminal

        check_terminal()
    body = {key: value for key, value in body.items() if value not in ("", False, [])}
    console = None
    if tty:
        from jaula.cli.output.user_terminal import console_size

        console = console_size()
    if console:
        body["ConsoleSize"] = console
    created = client.document("POST", path, (), body)
    exec_path = f"/exec/{created['Id']}"
    start_config: dict[str, Any] = {"Detach": detach, "Tty": tty}
    if console:
        start_config["ConsoleSize"] = console
    if detach:
        client.request("POST", exec_path + "/start", (), start_config)
        return 0
    keys = detach_keys_of(options, tty=tty, stdin=stdin)
    loop = AttachLoop(client, tty=tty, stdin=stdin, resize_path=exec_path + "/resize", keys=keys)
    connection = check_hijacked(client.send_hijack(exec_path + "/start", (), start_config))
    return 0 if loop.run(connection) else _status(client, exec_path)


def _status(client: Client, path: str) -> int:
    for _ in range(MAX_POLLS):
        document = client.get(path + "/json")
        if not document["Running"]:
            return int(document["ExitCode"] or 0)
        from time import sleep

        sleep(0.01)
    raise CliError("the program closed its streams and is still running", status=125)


PROCESS_FLAGS = (
    Flag(
        "detach-keys",
        "",
        "string",
        "Override the key sequence for detaching a container",
        default="ctrl-p,ctrl-q",
    ),
    Flag(
        "env",
        "e",
        "list",
        "Set environment variables (NAME=value, or NAME to pass its value on)",
    ),
    Flag("env-file", "", "list", "Read in a file of environment variables", completes="file"),
    Flag("interactive", "i", "bool", "Keep STDIN open even if not attached"),
    Flag("tty", "t", "bool", "Allocate a pseudo-TTY"),
    Flag("user", "u", "string", "Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("workdir", "w", "string", "Working directory inside the container"),
)
"""Flags of a process that a client starts in a running container."""

EXIT_STATUS = (
    ("N", "the command's own exit status"),
    ("126", "the command cannot be executed"),
    ("127", "the command was not found"),
    ("1", "the engine refused"),
)

COMMAND = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    run,
    flags=(
        Flag("detach", "d", "bool", "Detached mode: run command in the background"),
        *PROCESS_FLAGS,
        Flag("privileged", "", "bool", "Give extended privileges to the command"),
    ),
    min_args=2,
    interspersed=False,
    description=(
        "Runs COMMAND in the namespaces, cgroup and security settings of a running container "
        "and exits with its status. Flags end at CONTAINER."
    ),
    examples=(("Run a shell in a container", "jaula exec -it web sh"),),
    exit_status=EXIT_STATUS,
    see_also=("run", "attach", "top", "why"),
    completes="container",
)
