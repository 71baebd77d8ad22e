"""``jaula rmi``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.for_each import each
from jaula.cli.images import platform_flag
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Remove the images; print each untagged name and deleted layer."""
    client = Client(Settings.host)
    query = (
        ("force", options.on("force")),
        ("noprune", options.on("no-prune")),
        *platform_flag.queries(options, "platforms"),
    )

    def remove(name: str) -> None:
        for row in client.document("DELETE", f"/images/{quote(name, '/:@')}", query) or ():
            for action, image in row.items():
                print(f"{action}: {image}")

    return each(options.arguments, remove, echo=False)


COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    run,
    flags=(
        Flag("force", "f", "bool", "Force removal of the image"),
        Flag("no-prune", "", "bool", "Do not delete untagged parents"),
        platform_flag.flag(
            'Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., '
            '"linux/amd64")',
            "list",
        ),
    ),
    min_args=1,
    description=(
        "Removes a name. The image is removed with its last name, a layer with the last image "
        "that uses it."
    ),
    examples=(("Remove an image", "jaula rmi busybox"),),
    see_also=("images", "image prune"),
    completes="image",
)
