"""``jaula diff``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list_output as output_list

KINDS = "CAD"


def run(options: Options) -> int:
    """Print the changes in the container's file system."""
    name = options.arguments[0]
    changes = Client(Settings.host).get(f"/containers/{quote(name)}/changes") or []
    output_format = options.text("format", "{{.Type}} {{.Path}}")
    columns: dict[str, output_list.Column] = {
        "Type": ("CHANGE TYPE", lambda change: KINDS[change["Kind"]]),
        "Path": ("PATH", lambda change: change["Path"]),
    }
    output_list.show(changes, columns, "{{.Type}}\t{{.Path}}", output_format)
    return 0


COMMAND = Command(
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    run,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
    ),
    min_args=1,
    max_args=1,
    description=(
        "A is added, C changed, D deleted, relative to the image. The changes are in the "
        "container's writable layer and are removed with it."
    ),
    examples=(("List the changes of a container", "jaula diff web"),),
    see_also=("ps", "export"),
    completes="container",
)
