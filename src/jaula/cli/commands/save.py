"""``jaula save``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import archive_output, platform_flag
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Write the images with all their layers as one archive."""
    query = [*(("names", name) for name in options.arguments), *platform_flag.queries(options)]
    response = Client(Settings.host).open("GET", "/images/get", query)
    archive_output.write(response.chunks(), options.text("output"), "save")
    return 0


COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    run,
    flags=(
        Flag("output", "o", "string", "Write to a file, instead of STDOUT", completes="file"),
        platform_flag.flag(
            "Save only the given platform(s). Formatted as a comma-separated list of "
            '"os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8")',
            "list",
        ),
    ),
    min_args=1,
    description=(
        "The archive is a Docker archive and an OCI image layout at once. docker load, jaula "
        "load and skopeo (docker-archive: and oci-archive:) read it. It has all platforms of an "
        "image that the engine has."
    ),
    examples=(("Copy an image to another host", "jaula save web | ssh host docker load"),),
    see_also=("load", "export"),
    completes="image",
)
