"""``jaula image verify``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError, UsageError
from jaula.cli.main import Settings
from jaula.cli.output import list as output_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHOWN = 20  # damages of one image


def run(options: Options) -> int:
    """Have images read and compared; 1 where one is damaged."""
    if options.on("all") == bool(options.arguments):
        raise UsageError('"jaula image verify" requires an image, or --all.', status=1)
    names = tuple(("names", name) for name in options.arguments)
    found = []
    for document in Client(Settings.host).lines("GET", "/jaula/images/verify", names):
        if "error" in document:
            raise CliError(f"Error response from engine: {document['error']}")
        found.append(document)
    columns: dict[str, output_list.Column] = {
        "Image": ("IMAGE", _name),
        "Blobs": ("BLOBS", lambda row: str(row["Blobs"])),
        "Layers": ("LAYERS", lambda row: str(row["Layers"])),
        "Result": ("RESULT", lambda row: "DAMAGED" if row["Damages"] else "intact"),
        "Damages": ("DAMAGES", lambda row: row["Damages"]),
    }
    form = options.text("format")
    output_list.show(found, columns, "{{.Image}}\t{{.Blobs}}\t{{.Layers}}\t{{.Result}}", form)
    damaged = [row for row in found if row["Damages"]]
    if not form:
        for row in damaged:
            _tell(row)
    return 1 if damaged else 0


def _name(row: dict[str, Any]) -> str:
    return str((row["RepoTags"] or [output_list.short_id(row["Id"]) or "<none>"])[0])


def _tell(row: dict[str, Any]) -> None:
    damages = row["Damages"]
    for damage in damages[:_SHOWN]:
        path = f" {damage['Path']}" if damage["Path"] else ""
        print(f"{_name(row)}: {damage['Kind']} {damage['Digest']}{path}: {damage['Problem']}")
    if len(damages) > _SHOWN:
        print(f"{_name(row)}: and {len(damages) - _SHOWN} more", file=sys.stderr)


COMMAND = Command(
    "[OPTIONS] [IMAGE...]",
    "Compare images with what they were when they came",
    run,
    flags=(
        Flag("all", "a", "bool", "Every image"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
    ),
    description=(
        "Reads every blob and compares it with its digest, and compares every file of the "
        "unpacked layers with what the blob says: content, type, mode, owner, links, times, "
        "attributes; what is missing, and what is too much. For that a layer is unpacked once "
        "more for a moment. The exit status is 1 where something is damaged."
    ),
    examples=(
        ("One image", "jaula image verify debian"),
        ("Everything, and mend what can be mended", "jaula system check --contents --repair"),
    ),
    see_also=("system check", "trust verify"),
)
