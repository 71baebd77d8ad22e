"""``jaula inspect``: whatever has that name."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import EngineError, UsageError
from jaula.cli.main import Settings
from jaula.cli.output import inspect

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
    """Look for each name among containers, images, networks and volumes, in that order."""
    client = Client(Settings.host)
    wanted = options.text("type")
    if wanted and wanted not in PATHS:
        kinds = ", ".join(PATHS)
        raise UsageError(f'"{wanted}" is not a valid value for --type: {kinds}', status=1)
    size = (("size", options.on("size")),)

    def find(name: str) -> Any:
        for kind in [wanted] if wanted else PATHS:
            try:
                path = PATHS[kind].format(quote(name, "/:@"))
                return client.get(path, size if kind == "container" else ())
            except EngineError as error:
                if wanted or error.code not in (400, inspect.NOT_FOUND):
                    raise
        lost = EngineError(inspect.NOT_FOUND, "")
        lost.message = f"Error: No such object: {name}"
        raise lost

    return inspect.show(options.arguments, options.text("format"), find)


COMMAND = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on containers, images, networks and volumes",
    run,
    flags=(
        inspect.FORMAT,
        Flag("size", "s", "bool", "Display total file sizes if the type is container"),
        Flag("type", "", "string", "Return JSON for specified type", completes=tuple(PATHS)),
    ),
    min_args=1,
    description=(
        "Prints Docker's document of each object as JSON. A template chooses from it: fields with "
        "{{.State.Pid}}, lists with {{range .Mounts}}...{{end}}, JSON with {{json .Config}}."
    ),
    examples=(
        ("The process of a container on the host", "jaula inspect -f '{{.State.Pid}}' web"),
        ("The user mapping", "jaula inspect -f '{{json .HostConfig.UsernsMode}}' web"),
    ),
    see_also=("ps", "verify"),
    completes="container",
)
