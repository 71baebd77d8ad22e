"""``jaula pull``."""

from __future__ import annotations

from jaula.cli import pulling
from jaula.cli.client import Client
from jaula.cli.creation import with_tag
from jaula.cli.flags import Command, Flag, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Fetch the image; the engine says why where it cannot."""
    image = options.arguments[0]
    _, tag = pulling.split(image)
    if tag == "latest" and not image.endswith(":latest") and not options.on("quiet"):
        print(f"Using default tag: {tag}", flush=True)
    quiet = options.on("quiet")
    pulling.pull(Client(Settings.host), image, options.text("platform"), quiet=quiet, output=1)
    print(with_tag(image))
    return 0


COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    run,
    flags=(
        Flag("platform", "", "string", "Platform of the image (os/arch)"),
        Flag("quiet", "q", "bool", "Suppress progress"),
    ),
    least=1,
    most=1,
    description=(
        "Where no registry answers, load reads an archive, and image bootstrap makes an image "
        "from the host's own package mirror."
    ),
    examples=(("An image", "jaula pull debian:13"),),
    see_also=("load", "image bootstrap", "images"),
)
