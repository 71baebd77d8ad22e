"""``jaula system check``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list as output_list
from jaula.cli.output.progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(options: Options) -> int:
    """Print the findings; 1 if one is not repaired."""
    client = Client(Settings.host)
    query = (("contents", "1"),) if options.on("contents") else ()
    repair = options.on("repair")
    with Progress("repair" if repair else "check"):
        if repair:
            findings = client.document("POST", "/jaula/system/repair", query)["Findings"]
        else:
            findings = client.get("/jaula/system/check", query)["Findings"]
    output_format = options.text("format")
    if not findings and not output_format:
        print("No problems found.")
        return 0
    columns: dict[str, output_list.Column] = {
        "Area": ("AREA", lambda row: row["Area"]),
        "Subject": ("SUBJECT", lambda row: row["Subject"]),
        "Problem": ("PROBLEM", lambda row: row["Problem"]),
        "Advice": ("ADVICE", lambda row: row["Advice"]),
        "Repairable": ("REPAIRABLE", lambda row: row["Repairable"]),
        "Repaired": ("REPAIRED", lambda row: row["Repaired"]),
        "Failure": ("FAILURE", lambda row: row["Failure"]),
        "Outcome": ("REPAIRED" if repair else "REPAIR", _outcome if repair else _planned_repair),
    }
    default = "{{.Area}}\t{{.Subject}}\t{{.Problem}}\t{{.Outcome}}"
    output_list.show(findings, columns, default, output_format)
    return 0 if all(row["Repaired"] for row in findings) else 1


def _planned_repair(row: dict[str, Any]) -> str:
    """Return what --repair would do, or what the administrator can do."""
    return row["Advice"] if row["Repairable"] else f"by hand: {row['Advice']}"


def _outcome(row: dict[str, Any]) -> str:
    if row["Repaired"]:
        return f"yes: {row['Advice']}"
    return f"no: {row['Failure'] or row['Advice']}"


COMMAND = Command(
    "[OPTIONS]",
    "Check the engine's state for dangling, missing or damaged objects",
    run,
    flags=(
        Flag("contents", "", "bool", "Verify the content of images too, as image verify does"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("repair", "", "bool", "Repair what can be repaired without loss of data"),
    ),
    max_args=0,
    description=(
        "Compares images, layers, containers, volumes, networks and cgroups with the engine's "
        "database. The exit status is 0 if there is no finding or all are repaired, else 1."
    ),
    examples=(
        ("Check without changes", "jaula system check"),
        ("Check contents and repair", "jaula system check --contents --repair"),
    ),
    see_also=("image verify", "system df", "doctor"),
)
