"""``jaula history``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import platform_flag
from jaula.cli.main import Settings
from jaula.cli.output import list_output as output_list
from jaula.cli.output import times
from jaula.spec import units


def run(options: Options) -> int:
    """List the history of an image, the newest step first."""
    name = options.arguments[0]
    path = f"/images/{quote(name, '/:@')}/history"
    rows = Client(Settings.host).get(path, platform_flag.query(options)) or []
    no_trunc, human = options.on("no-trunc"), options.on("human", True)
    columns: dict[str, output_list.Column] = {
        "ID": (
            "IMAGE",
            lambda row: (
                row["Id"] if row["Id"] == "<missing>" else output_list.short_id(row["Id"], no_trunc)
            ),
        ),
        "CreatedSince": (
            "CREATED",
            lambda row: times.ago(row["Created"]) if row["Created"] > 0 else "N/A",
        ),
        "CreatedAt": (
            "CREATED AT",
            lambda row: times.local(row["Created"], "%Y-%m-%dT%H:%M:%SZ"),
        ),
        "CreatedBy": (
            "CREATED BY",
            lambda row: output_list.ellipsis(
                _one_line(row["CreatedBy"]), 1 << 20 if no_trunc else 45
            ),
        ),
        "Size": (
            "SIZE",
            lambda row: units.human_size(row["Size"], 3) if human else str(row["Size"]),
        ),
        "Comment": ("COMMENT", lambda row: row["Comment"] or ""),
    }
    output_format = options.text("format")
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    since = "CreatedSince" if human else "CreatedAt"
    default = "{{.ID}}\t{{." + since + "}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
    output_list.show(rows, columns, default, output_format)
    return 0


def _one_line(text: str | None) -> str:
    return (text or "").replace("\t", " ").replace("\n", " ")


COMMAND = Command(
    "[OPTIONS] IMAGE",
    "Show the history of an image",
    run,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag(
            "human", "H", "bool", "Print sizes and dates in human readable format", default="true"
        ),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        platform_flag.flag(
            'Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., '
            '"linux/amd64")'
        ),
        Flag("quiet", "q", "bool", "Only show image IDs"),
    ),
    min_args=1,
    max_args=1,
    description="One line for each build step of the image; steps without a layer have size 0.",
    examples=(("Show the history", "jaula history debian"),),
    see_also=("images", "image inspect"),
    completes="image",
)
