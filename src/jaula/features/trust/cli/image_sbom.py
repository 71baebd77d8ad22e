"""``jaula image sbom``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress
from jaula.spec.fast_json import pretty

FORMS = ("spdx", "cyclonedx")


def run(options: Options) -> int:
    """Print the packages of an image."""
    client = Client(Settings.host)
    path, query = (
        f"/jaula/sbom/{quote(options.arguments[0], '/:@')}",
        (("form", options.text("format", FORMS[0])),),
    )
    with Progress("sbom"):
        document = client.document("GET", path, query)
    text = pretty(document) + "\n"
    path = options.text("output")
    if not path:
        sys.stdout.write(text)
        return 0
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CliError(f"jaula: cannot write {path}: {(error.strerror or '').lower()}") from None
    return 0


COMMAND = Command(
    "[OPTIONS] IMAGE",
    "List the packages in an image, as SPDX or CycloneDX",
    run,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format of the document (spdx or cyclonedx)",
            default="spdx",
            completes=FORMS,
        ),
        Flag("output", "o", "string", "Write to a file, instead of STDOUT", completes="file"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Reads the databases of dpkg, apk and rpm and the metadata of installed Python and Node "
        "packages from the image's files. Nothing is executed and no network is used. The same "
        "image gives the same document."
    ),
    examples=(
        (
            "Write CycloneDX for a scanner",
            "jaula image sbom --format cyclonedx -o web.json web:1.0",
        ),
    ),
    see_also=("image inspect", "history"),
    completes="image",
)
