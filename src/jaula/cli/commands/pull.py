"""``jaula pull``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import content_trust, platform_flag, pull_progress
from jaula.cli.images.registry_auth import HUB, domain
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Pull the image; with ``--all-tags`` every tag of its repository."""
    image, all_tags = pull_progress.repository_or_tag(options)
    quiet = options.on("quiet")
    client, requested = Client(Settings.host), platform_flag.requested(options)
    pull_progress.pull(client, image, requested, quiet=quiet, output=1, all_tags=all_tags)
    full = image if all_tags else pull_progress.with_tag(image)
    print(full if quiet else _canonical(full))
    return 0


def _canonical(image: str) -> str:
    """Return the full reference that Docker prints: ``docker.io/library/busybox:latest``."""
    server = domain(image)
    if server != HUB:
        return image
    path = image.partition("/")[2] if image.startswith((HUB + "/", "index." + HUB + "/")) else image
    return f"{HUB}/{path}" if "/" in path else f"{HUB}/library/{path}"


COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    run,
    flags=(
        Flag("all-tags", "a", "bool", "Download all tagged images in the repository"),
        content_trust.FLAG,
        Flag(
            "platform", "", "string", "Set platform if server is multi-platform capable (os/arch)"
        ),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Downloads the missing layers in parallel and unpacks them as they arrive. Without a "
        "registry, use load to read an archive, or image bootstrap to build an image from the "
        "host's package mirror."
    ),
    examples=(
        ("Pull a tag", "jaula pull debian:13"),
        ("Pull a digest", "jaula pull debian@sha256:0123..."),
    ),
    see_also=("push", "login", "load", "image bootstrap", "images"),
)
