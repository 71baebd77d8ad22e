"""``jaula image inspect``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.images import platform_flag
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output


def run(options: Options) -> int:
    """Print the documents of the images."""
    client, query = Client(Settings.host), platform_flag.query(options)
    return inspect_output.show(
        options.arguments,
        options.text("format"),
        lambda name: client.get(f"/images/{quote(name, '/:@')}/json", query),
    )


COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    run,
    flags=(
        inspect_output.FORMAT,
        platform_flag.flag(
            "Inspect a specific platform of the multi-platform image. 'os[/arch[/variant]]': "
            "Explicit platform (eg. linux/amd64)"
        ),
    ),
    min_args=1,
    description="Prints Docker's document of each image as JSON, or the output of a template.",
    examples=(("Inspect an image", "jaula image inspect busybox"),),
    see_also=("inspect", "images"),
    completes="image",
)
