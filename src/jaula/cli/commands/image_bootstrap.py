"""``jaula image bootstrap``: build an image from the host's package mirror."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings

RECIPES = ("busybox", "debian", "ubuntu")


def run(options: Options) -> int:
    """Build the images and load them into the engine, or write them to a file."""
    for name in options.arguments:
        bootstrap(Client(Settings.host), name, options.text("output"), quiet=options.on("quiet"))
    return 0


def bootstrap(client: Client, name: str, output: str = "", *, quiet: bool = False) -> str:
    """Build one image and return its reference.

    :raises CliError: when the mirror or a program is missing.
    """
    from jaula.cli import site_packages

    site_packages.enable()
    import tempfile
    from pathlib import Path

    from jaula.cli.commands.load import send
    from jaula.errors import JaulaError
    from jaula.images.bootstrap import build

    def progress(line: str) -> None:
        if not quiet:
            sys.stderr.write(f"{name}: {line}\n")

    try:
        if output:
            return build(name, Path(output), progress)
        with tempfile.TemporaryDirectory(prefix="jaula-") as scratch:
            path = Path(scratch) / "image.tar"
            reference = build(name, path, progress)
            with path.open("rb", buffering=0) as archive:
                send(client, archive, quiet=quiet)
            return reference
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None


COMMAND = Command(
    "[OPTIONS] NAME[:SUITE] [NAME...]",
    "Build an image from the host's package mirror",
    run,
    flags=(
        Flag(
            "output",
            "o",
            "string",
            "Write the image to an archive, instead of loading it",
            completes="file",
        ),
        Flag("quiet", "q", "bool", "Suppress progress output"),
    ),
    min_args=1,
    description=(
        "busybox is Debian's static busybox with its applets. debian and ubuntu are a minimal "
        "system of the given suite. Two builds from the same packages give the same image ID. "
        "No registry is needed, only the package mirror of apt."
    ),
    examples=(
        ("Build two base images", "jaula image bootstrap busybox debian"),
        ("Build a release of Ubuntu", "jaula image bootstrap ubuntu:noble"),
    ),
    see_also=("load", "pull", "images"),
    completes=RECIPES,
)
