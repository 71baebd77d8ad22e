"""``jaula inspect``: containers, images, networks and volumes by name or id."""

from __future__ import annotations

from jaula.cli.cli_errors import EngineError, UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


def run(options: Options) -> int:
    """Look up each name among containers, images, networks and volumes, in that order."""
    client = Client(Settings.host)
    type_name = options.text("type")
    if type_name and type_name not in PATHS:
        kinds = ", ".join(PATHS)
        raise UsageError(
            f'"{type_name}" is not a valid value for --type: must be one of {kinds}', status=1
        )
    size = (("size", options.on("size")),)

    def find(name: str) -> Any:
        for kind in [type_name] if type_name else PATHS:
            try:
                path = PATHS[kind].format(quote(name, "/:@"))
                return client.get(path, size if kind == "container" else ())
            except EngineError as error:
                if type_name or error.code not in (400, inspect_output.NOT_FOUND):
                    raise
        not_found = EngineError(inspect_output.NOT_FOUND, f"No such object: {name}")
        not_found.message = f"Error: No such object: {name}"
        raise not_found

    return inspect_output.show(options.arguments, options.text("format"), find)


COMMAND = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on containers, images, networks and volumes",
    run,
    flags=(
        inspect_output.FORMAT,
        Flag("size", "s", "bool", "Display total file sizes if the type is container"),
        Flag("type", "", "string", "Return JSON for specified type", completes=tuple(PATHS)),
    ),
    min_args=1,
    description=(
        "Prints Docker's document of each object as JSON. A template selects parts of it: "
        "fields with {{.State.Pid}}, lists with {{range .Mounts}}...{{end}}, JSON with {{json "
        ".Config}}."
    ),
    examples=(
        ("The host's pid of a container", "jaula inspect -f '{{.State.Pid}}' web"),
        ("The user namespace mode", "jaula inspect -f '{{json .HostConfig.UsernsMode}}' web"),
    ),
    see_also=("ps", "verify"),
    completes="container",
)
