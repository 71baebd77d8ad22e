"""``jaula network ls``."""

from __future__ import annotations

from jaula.cli.client.client import Client, filters
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list as output_list
from jaula.cli.output.list import short_id


def run(options: Options) -> int:
    """List networks by name."""
    query = (("filters", filters(options.texts("filter"))),)
    networks = Client(Settings.host).get("/networks", query) or []
    networks.sort(key=lambda network: network["Name"])
    no_trunc = options.on("no-trunc")
    columns: dict[str, output_list.Column] = {
        "ID": ("NETWORK ID", lambda item: short_id(item["Id"], no_trunc)),
        "Name": ("NAME", lambda item: item["Name"]),
        "Driver": ("DRIVER", lambda item: item["Driver"]),
        "Scope": ("SCOPE", lambda item: item["Scope"]),
        "IPv6": ("IPV6", lambda item: "true" if item.get("EnableIPv6") else "false"),
        "Internal": ("INTERNAL", lambda item: "true" if item.get("Internal") else "false"),
        "Labels": (
            "LABELS",
            lambda item: ",".join(
                f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())
            ),
        ),
        "CreatedAt": ("CREATED AT", lambda item: item.get("Created", "")),
    }
    output_format = options.text("format")
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    output_list.show(
        networks, columns, "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", output_format
    )
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "List networks",
    run,
    flags=(
        Flag("filter", "f", "list", "Provide filter values (driver=bridge, name=b)"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("no-trunc", "", "bool", "Do not truncate the output"),
        Flag("quiet", "q", "bool", "Only display network IDs"),
    ),
    max_args=0,
    description="Lists the networks that the flag --network of run accepts.",
    examples=(("List networks", "jaula network ls"),),
    see_also=("network create", "network inspect", "run"),
)
