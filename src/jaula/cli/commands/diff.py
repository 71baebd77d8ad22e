"""``jaula diff``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list as output_list

KINDS = "CAD"


def run(options: Options) -> int:
    """Print what the container changed in its filesystem."""
    name = options.arguments[0]
    found = Client(Settings.host).get(f"/containers/{quote(name)}/changes") or []
    form = options.text("format", "{{.Type}} {{.Path}}")
    columns: dict[str, output_list.Column] = {
        "Type": ("CHANGE TYPE", lambda change: KINDS[change["Kind"]]),
        "Path": ("PATH", lambda change: change["Path"]),
    }
    output_list.show(found, columns, "{{.Type}}\t{{.Path}}", form)
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
        "A is added, C changed, D deleted, against the image. The changes live in the container's "
        "own layer and go with it."
    ),
    examples=(("What a program has written", "jaula diff web"),),
    see_also=("ps", "export"),
    completes="container",
)
