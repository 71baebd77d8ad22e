"""``jaula push``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers.create import with_tag
from jaula.cli.images import content_trust, pull, registry_auth
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Send the image; with ``--all-tags`` every tag of its repository."""
    image, every = pull.repository_or_tag(options)
    name, tag = pull.split(image)
    messages = Client(Settings.host).lines(
        "POST",
        f"/images/{quote(name, '/:')}/push",
        (("tag", "" if every else tag),),
        registry_auth.headers(image),
    )
    pull.show(messages, sys.stdout, quiet=options.on("quiet"))
    if options.on("quiet"):
        print(image if every else with_tag(image))
    return 0


COMMAND = Command(
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    run,
    flags=(
        Flag("all-tags", "a", "bool", "Push every tag of the repository"),
        content_trust.FLAG,
        Flag("quiet", "q", "bool", "Suppress progress"),
    ),
    least=1,
    most=1,
    description=(
        "Sends the layers that the registry does not have, and then the image's manifest. What was "
        "pulled is sent as it came, under the same digest; layers of an image that was loaded or "
        "imported are compressed first."
    ),
    examples=(("An image for others", "jaula push registry.example.com/team/web:1.0"),),
    see_also=("pull", "login", "tag"),
    completes="image",
)
