"""``jaula volume ls``."""

from __future__ import annotations

from jaula.cli.client.client import Client, filters
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list as output_list
from jaula.spec import units


def run(options: Options) -> int:
    """List volumes by name."""
    query = (("filters", filters(options.texts("filter"))),)
    volumes = (Client(Settings.host).get("/volumes", query) or {}).get("Volumes") or []
    volumes.sort(key=lambda volume: volume["Name"])
    output_format = options.text("format")
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.Name}}"
    output_list.show(volumes, COLUMNS, "{{.Driver}}\t{{.Name}}", output_format)
    return 0


COLUMNS: dict[str, output_list.Column] = {
    "Name": ("VOLUME NAME", lambda item: item["Name"]),
    "Driver": ("DRIVER", lambda item: item["Driver"]),
    "Mountpoint": ("MOUNTPOINT", lambda item: item["Mountpoint"]),
    "Scope": ("SCOPE", lambda item: item["Scope"]),
    "Labels": (
        "LABELS",
        lambda item: ",".join(
            f"{key}={value}" for key, value in sorted((item.get("Labels") or {}).items())
        ),
    ),
    "Links": ("LINKS", lambda item: str((item.get("UsageData") or {}).get("RefCount", "N/A"))),
    "Size": ("SIZE", lambda item: _size((item.get("UsageData") or {}).get("Size", -1))),
}


def _size(number: int) -> str:
    return "N/A" if number < 0 else units.human_size(number, 4)


COMMAND = Command(
    "[OPTIONS]",
    "List volumes",
    run,
    flags=(
        Flag("filter", "f", "list", "Provide filter values (dangling=true, label=a=b, name=d)"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("quiet", "q", "bool", "Only display volume names"),
    ),
    max_args=0,
    description="Volumes keep data longer than the containers that use them.",
    examples=(("Unused volumes", "jaula volume ls -f dangling=true"),),
    see_also=("volume create", "volume rm", "volume prune"),
)
