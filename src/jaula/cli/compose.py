"""``jaula compose``: docker's compose plugin, connected to this engine."""

from __future__ import annotations

import os

from jaula.cli.cli_errors import CliError
from jaula.cli.client import engine_address
from jaula.cli.client.api_client import Client, resolve_endpoint
from jaula.cli.command_parser import Command, Options
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.client.client_tls import TlsOptions

PROGRAM = "docker-compose"
PLUGINS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
"""Docker's plugin directories, searched after that of the user."""

WITHOUT_ENGINE = frozenset({"version", "help", "--help", "-h", "--version", "config", "completion"})
NOT_FOUND = 127


def run(options: Options) -> int:
    """Execute compose with all arguments.

    :raises CliError: when compose is not installed.
    """
    program = find()
    client = Client(Settings.host)
    if not WITHOUT_ENGINE.intersection(options.arguments):
        client.release(client.connection())  # starts an engine if none answers
    selected = resolve_endpoint(Settings.host)
    environment = dict(os.environ) | {"DOCKER_HOST": client.address.text}
    environment.pop("DOCKER_CONTEXT", None)
    if selected.security is not None:
        environment |= certificates(selected.security)
    os.execve(program, [program, *options.arguments], environment)


def find() -> str:
    """Return the path of compose: a plugin of docker, or a command in PATH.

    :raises CliError: when it is not installed.
    """
    user_directory = f"{engine_address.config_directory()}/cli-plugins"
    path = os.environ.get("PATH", os.defpath).split(":")
    for directory in (user_directory, *PLUGINS, *path):
        program = f"{directory}/{PROGRAM}"
        if directory and os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    raise CliError(
        "docker compose is not installed: on Debian, 'apt install docker-compose'; for others, "
        "https://docs.docker.com/compose/install/linux/ has the plugin",
        status=NOT_FOUND,
    )


def certificates(security: TlsOptions) -> dict[str, str]:
    """Return the variables that give compose the TLS files.

    :raises CliError: when the files are not in one directory under Docker's names.
    """
    paths = (security.authority, security.certificate, security.key)
    directories = {os.path.dirname(path) for path in paths if path}
    misnamed = [
        path
        for path, name in zip(paths, engine_address.TLS_FILES, strict=True)
        if path and os.path.basename(path) != name
    ]
    if len(directories) > 1 or misnamed:
        files = ", ".join(engine_address.TLS_FILES)
        raise CliError(f"compose requires certificates in one directory, named {files}")
    variables = {"DOCKER_TLS_VERIFY": "1"} if security.verify else {"DOCKER_TLS": "1"}
    return variables | ({"DOCKER_CERT_PATH": directories.pop()} if directories else {})


COMMAND = Command(
    "[OPTIONS] COMMAND",
    "Define and run multi-container applications with Docker Compose",
    run,
    raw=True,
    description=(
        "Executes the docker compose plugin with this engine in DOCKER_HOST. All options are "
        "those of compose; 'jaula compose --help' lists them."
    ),
    examples=(
        ("Start the services of compose.yaml", "jaula compose up -d"),
        ("Follow their logs", "jaula compose logs -f"),
    ),
    exit_status=((str(NOT_FOUND), "compose is not installed"),),
    see_also=("build", "run", "network create", "volume create"),
)
