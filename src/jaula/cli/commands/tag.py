"""``jaula tag``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Options
from jaula.cli.images import pull_progress
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Add a tag to the image."""
    source, target = options.arguments
    repository, tag = pull_progress.split_reference(target)
    query = (("repo", repository), ("tag", tag))
    Client(Settings.host).request("POST", f"/images/{quote(source, '/:@')}/tag", query)
    return 0


COMMAND = Command(
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    run,
    min_args=2,
    max_args=2,
    description="Both names refer to the same image; nothing is copied.",
    examples=(("Tag a version", "jaula tag web:latest web:1.0"),),
    see_also=("images", "rmi"),
    completes="image",
)
