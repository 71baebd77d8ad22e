"""``jaula context ls``."""

from __future__ import annotations

import sys

from jaula.cli.client import contexts, endpoint
from jaula.cli.client.contexts import Context
from jaula.cli.client.endpoint import DEFAULT
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.output import list as output_list


def run(options: Options) -> int:
    """List contexts by name, including the default one."""
    current = endpoint.current_context()
    names = sorted({*contexts.names(), DEFAULT, current})
    if options.on("quiet"):
        print("\n".join(names))
        return 0
    items = [_item(name, current) for name in names]
    output_format = options.text("format")
    columns = COLUMNS | MARKED if output_format in ("", "table") else COLUMNS
    output_list.show(items, columns, TABLE, output_format)
    if (variable := endpoint.host_variable()) and not endpoint.ConnectionOptions.context:
        sys.stderr.write(
            f"Warning: {variable} environment variable overrides the active context. To use a "
            f"context, either set the global --context flag, or unset {variable} environment "
            "variable.\n"
        )
    return 0


def _item(name: str, current: str) -> dict[str, object]:
    error = ""
    try:
        context = contexts.load(name)
    except CliError as exception:
        context, error = Context(name), exception.message
    return {
        "name": name,
        "description": context.description,
        "host": context.host,
        "current": name == current,
        "error": error,
    }


TABLE = "{{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
COLUMNS: dict[str, output_list.Column] = {
    "Name": ("NAME", lambda item: item["name"]),
    "Description": ("DESCRIPTION", lambda item: item["description"]),
    "DockerEndpoint": ("DOCKER ENDPOINT", lambda item: item["host"]),
    "Current": ("CURRENT", lambda item: item["current"]),
    "Error": ("ERROR", lambda item: item["error"]),
    "ContextType": ("TYPE", lambda item: "moby"),
}
MARKED: dict[str, output_list.Column] = {
    "Name": ("NAME", lambda item: item["name"] + (" *" if item["current"] else "")),
}

COMMAND = Command(
    "[OPTIONS]",
    "List contexts",
    run,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("quiet", "q", "bool", "Only show context names"),
    ),
    max_args=0,
    description="An asterisk marks the current context.",
    examples=(
        ("Names and endpoints", "jaula context ls --format '{{.Name}} {{.DockerEndpoint}}'"),
    ),
    see_also=("context use", "context create"),
)
