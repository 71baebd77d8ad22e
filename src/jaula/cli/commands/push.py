"""``jaula push``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.images import content_trust, pull, registry_auth
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Push the image; with ``--all-tags`` every tag of its repository."""
    image, all_tags = pull.repository_or_tag(options)
    name, tag = pull.split_reference(image)
    messages = Client(Settings.host).lines(
        "POST",
        f"/images/{quote(name, '/:')}/push",
        (("tag", "" if all_tags else tag),),
        registry_auth.headers(image),
    )
    pull.show_progress(messages, sys.stdout, quiet=options.on("quiet"))
    if options.on("quiet"):
        print(image if all_tags else pull.with_tag(image))
    return 0


COMMAND = Command(
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    run,
    flags=(
        Flag("all-tags", "a", "bool", "Push all tags of an image to the repository"),
        content_trust.FLAG,
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Uploads the layers that the registry does not have, then the manifest. A pulled image "
        "is pushed unchanged, under the same digest. The layers of a loaded or imported image "
        "are compressed first."
    ),
    examples=(("Push a tag", "jaula push registry.example.com/team/web:1.0"),),
    see_also=("pull", "login", "tag"),
    completes="image",
)
