"""``jaula compose``: docker's own program, pointed at this engine."""

from __future__ import annotations

import os

from jaula.cli.client import endpoint
from jaula.cli.client.client import Client, resolve_endpoint
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.client.tls import TlsOptions

PROGRAM = "docker-compose"
PLUGINS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
"""Where docker looks for its plugins, after the person's own directory."""

WITHOUT_ENGINE = frozenset({"version", "help", "--help", "-h", "--version", "config", "completion"})
NOT_FOUND = 127


def run(options: Options) -> int:
    """Become compose, with every word that was given. Raises Failure where it is not there."""
    program = find()
    client = Client(Settings.host)
    if not WITHOUT_ENGINE.intersection(options.arguments):
        client.release(client.connection())  # starts an engine where that is due
    found = resolve_endpoint(Settings.host)
    environment = dict(os.environ) | {
        "DOCKER_HOST": client.address.text,
        "DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0"),  # its protocol is not spoken
    }
    environment.pop("DOCKER_CONTEXT", None)
    if found.security is not None:
        environment |= certificates(found.security)
    os.execve(program, [program, *options.arguments], environment)


def find() -> str:
    """The program's path: a plugin of docker's, or a command. Raises Failure."""
    own = f"{endpoint.config_directory()}/cli-plugins"
    path = os.environ.get("PATH", os.defpath).split(":")
    for directory in (own, *PLUGINS, *path):
        program = f"{directory}/{PROGRAM}"
        if directory and os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    raise CliError(
        "docker compose is not installed: on Debian, 'apt install docker-compose'; for others, "
        "https://docs.docker.com/compose/install/linux/ has the plugin",
        status=NOT_FOUND,
    )


def certificates(security: TlsOptions) -> dict[str, str]:
    """The variables by which compose finds what TLS needs. Raises Failure."""
    given = (security.authority, security.certificate, security.key)
    places = {os.path.dirname(path) for path in given if path}
    wrong = [
        path
        for path, name in zip(given, endpoint.TLS_FILES, strict=True)
        if path and os.path.basename(path) != name
    ]
    if len(places) > 1 or wrong:
        files = ", ".join(endpoint.TLS_FILES)
        raise CliError(f"compose takes certificates of one directory only, named {files}")
    found = {"DOCKER_TLS_VERIFY": "1"} if security.verify else {"DOCKER_TLS": "1"}
    return found | ({"DOCKER_CERT_PATH": places.pop()} if places else {})


COMMAND = Command(
    "[OPTIONS] COMMAND",
    "Define and run applications of several containers (docker compose)",
    run,
    raw=True,
    description=(
        "Hands over to the docker compose plugin, with the engine that this command would talk to "
        "in DOCKER_HOST. Builds go by the classic protocol (DOCKER_BUILDKIT=0). All options are "
        "compose's own; 'jaula compose --help' lists them."
    ),
    examples=(
        ("Start what compose.yaml describes", "jaula compose up -d"),
        ("What it says", "jaula compose logs -f"),
    ),
    exit_status=((str(NOT_FOUND), "compose is not installed"),),
    see_also=("build", "run", "network create", "volume create"),
)
