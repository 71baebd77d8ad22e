"""``jaula system check``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list as output_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(options: Options) -> int:
    """Show what is not as it should be; 1 where something of that is left."""
    client = Client(Settings.host)
    query = (("contents", "1"),) if options.on("contents") else ()
    repair = options.on("repair")
    if repair:
        found = client.document("POST", "/jaula/system/repair", query)["Findings"]
    else:
        found = client.get("/jaula/system/check", query)["Findings"]
    form = options.text("format")
    if not found and not form:
        print("Nothing is wrong.")
        return 0
    columns: dict[str, output_list.Column] = {
        "Area": ("AREA", lambda row: row["Area"]),
        "Subject": ("SUBJECT", lambda row: row["Subject"]),
        "Problem": ("PROBLEM", lambda row: row["Problem"]),
        "Advice": ("ADVICE", lambda row: row["Advice"]),
        "Repairable": ("REPAIRABLE", lambda row: row["Repairable"]),
        "Repaired": ("REPAIRED", lambda row: row["Repaired"]),
        "Failure": ("FAILURE", lambda row: row["Failure"]),
        "Outcome": ("REPAIRED" if repair else "REPAIR", _outcome if repair else _prospect),
    }
    default = "{{.Area}}\t{{.Subject}}\t{{.Problem}}\t{{.Outcome}}"
    output_list.show(found, columns, default, form)
    return 0 if all(row["Repaired"] for row in found) else 1


def _prospect(row: dict[str, Any]) -> str:
    """What --repair would do, or what a person can do."""
    return row["Advice"] if row["Repairable"] else f"by hand: {row['Advice']}"


def _outcome(row: dict[str, Any]) -> str:
    if row["Repaired"]:
        return f"yes: {row['Advice']}"
    return f"no: {row['Failure'] or row['Advice']}"


COMMAND = Command(
    "[OPTIONS]",
    "Find what is dangling, missing or damaged in what the engine keeps",
    run,
    flags=(
        Flag("contents", "", "bool", "Read every byte of images too, as image verify does"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("repair", "", "bool", "Mend what can be mended without loss, and say what was done"),
    ),
    max_args=0,
    description=(
        "Compares images, layers, containers, volumes, networks and cgroups with the engine's "
        "records. The exit status is 0 where nothing is wrong or all of it was repaired, else 1."
    ),
    examples=(
        ("Look, and change nothing", "jaula system check"),
        ("Everything that can be done", "jaula system check --contents --repair"),
    ),
    see_also=("image verify", "system df", "doctor"),
)
