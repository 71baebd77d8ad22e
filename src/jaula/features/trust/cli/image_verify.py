"""``jaula image verify``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list_output
from jaula.cli.output.progress_line import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_PRINTED = 20  # damages of one image


def run(options: Options) -> int:
    """Verify images; 1 if one is damaged."""
    if options.on("all") == bool(options.arguments):
        raise UsageError('"jaula image verify" requires an image, or --all.', status=1)
    names = tuple(("names", name) for name in options.arguments)
    images = []
    client = Client(Settings.host)
    with Progress("verify"):
        for document in client.lines("GET", "/jaula/images/verify", names):
            if "error" in document:
                raise CliError(f"Error response from engine: {document['error']}")
            images.append(document)
    columns: dict[str, list_output.Column] = {
        "Image": ("IMAGE", _name),
        "Blobs": ("BLOBS", lambda row: str(row["Blobs"])),
        "Layers": ("LAYERS", lambda row: str(row["Layers"])),
        "Result": ("RESULT", lambda row: "DAMAGED" if row["Damages"] else "intact"),
        "Damages": ("DAMAGES", lambda row: row["Damages"]),
    }
    output_format = options.text("format")
    list_output.show(
        images, columns, "{{.Image}}\t{{.Blobs}}\t{{.Layers}}\t{{.Result}}", output_format
    )
    damaged = [row for row in images if row["Damages"]]
    if not output_format:
        for row in damaged:
            _print_damages(row)
    return 1 if damaged else 0


def _name(row: dict[str, Any]) -> str:
    return str((row["RepoTags"] or [list_output.short_id(row["Id"]) or "<none>"])[0])


def _print_damages(row: dict[str, Any]) -> None:
    damages = row["Damages"]
    for damage in damages[:_MAX_PRINTED]:
        path = f" {damage['Path']}" if damage["Path"] else ""
        print(f"{_name(row)}: {damage['Kind']} {damage['Digest']}{path}: {damage['Problem']}")
    if len(damages) > _MAX_PRINTED:
        print(f"{_name(row)}: and {len(damages) - _MAX_PRINTED} more", file=sys.stderr)


COMMAND = Command(
    "[OPTIONS] [IMAGE...]",
    "Verify the blobs and layers of images",
    run,
    flags=(
        Flag("all", "a", "bool", "Verify every image"),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
    ),
    description=(
        "Compares every blob with its digest, and every file of the unpacked layers with the "
        "blob: content, type, mode, owner, links, times and attributes, and missing or "
        "additional files. Each layer is unpacked to a temporary directory for this. The exit "
        "status is 1 if an image is damaged."
    ),
    examples=(
        ("Verify an image", "jaula image verify debian"),
        ("Verify and repair everything", "jaula system check --contents --repair"),
    ),
    see_also=("system check", "trust verify"),
)
