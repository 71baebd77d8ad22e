"""``jaula search``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, filters
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import registry_auth
from jaula.cli.main import Settings
from jaula.cli.output import list_output as output_list

WIDTH = 45  # characters of a description


def run(options: Options) -> int:
    """List the results of the registry, in its order."""
    term = options.arguments[0]
    query = (
        ("term", term),
        ("limit", options.text("limit")),
        ("filters", filters(options.texts("filter"))),
    )
    results = Client(Settings.host).document(
        "GET", "/images/search", query, None, registry_auth.headers(term)
    )
    no_trunc = options.on("no-trunc")
    columns: dict[str, output_list.Column] = {
        "Name": ("NAME", lambda item: item["name"]),
        "Description": ("DESCRIPTION", lambda item: _one_line(item["description"], no_trunc)),
        "StarCount": ("STARS", lambda item: str(item["star_count"])),
        "IsOfficial": ("OFFICIAL", lambda item: "[OK]" if item["is_official"] else ""),
    }
    default = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
    output_list.show(results or (), columns, default, options.text("format"))
    return 0


def _one_line(text: str, no_trunc: bool) -> str:
    line = " ".join(text.split())
    return line if no_trunc else output_list.ellipsis(line, WIDTH)


COMMAND = Command(
    "[OPTIONS] TERM",
    "Search a registry for images",
    run,
    flags=(
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided (is-official=true, stars=3)",
        ),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("limit", "", "int", "Max number of search results (1 to 100)", default="25"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Searches Docker Hub, or the registry that TERM begins with, if it supports search."
    ),
    examples=(("Search official images", "jaula search -f is-official=true nginx"),),
    see_also=("pull",),
)
