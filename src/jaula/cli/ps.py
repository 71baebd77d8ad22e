"""``jaula ps``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, filters
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import columns as container_columns
from jaula.cli.main import Settings
from jaula.cli.output import list_output


def run(options: Options) -> int:
    """List containers, the newest first."""
    output_format = options.text("format")
    query = (
        ("all", options.on("all") or options.on("latest") or options.number("last", -1) > 0),
        (
            "limit",
            1
            if options.on("latest")
            else options.number("last", -1)
            if options.number("last", -1) > 0
            else "",
        ),
        ("size", options.on("size") or ".Size" in output_format),
        ("filters", filters(options.texts("filter"))),
        ("pods", options.on("pods")),
    )
    containers = Client(Settings.host).get("/containers/json", query) or []
    columns = container_columns.columns(no_trunc=options.on("no-trunc"))
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    default = container_columns.DEFAULT + (container_columns.PODS if options.on("pods") else "")
    default += "\t{{.Size}}" if options.on("size") else ""
    list_output.show(containers, columns, default, output_format)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "List containers",
    run,
    flags=(
        Flag("all", "a", "bool", "Show all containers"),
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided (status=exited, name=web, label=a=b)",
        ),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("last", "n", "int", "Show n last created containers (includes all states)"),
        Flag("latest", "l", "bool", "Show the latest created container (includes all states)"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("pods", "", "bool", "Show the containers of Kubernetes' pods too"),
        Flag("quiet", "q", "bool", "Only display container IDs"),
        Flag("size", "s", "bool", "Display total file sizes"),
    ),
    max_args=0,
    description=(
        "Filters: id, name, label, exited, status (created, running, paused, exited, dead), "
        "ancestor, before, since, volume, network, publish, expose, health."
    ),
    examples=(
        ("Names and states", "jaula ps -a --format 'table {{.Names}}\\t{{.Status}}'"),
        ("Remove all exited containers", "jaula rm $(jaula ps -aq -f status=exited)"),
    ),
    see_also=("inspect", "stats", "top"),
)
