"""``jaula images``."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import Client, filters
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import list_output as output_list
from jaula.cli.output import times
from jaula.cli.output.list_output import short_id
from jaula.spec import units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

NONE = "<none>"


def run(options: Options) -> int:
    """List images, one line for each name of an image."""
    conditions = options.texts("filter")
    if options.arguments:
        conditions.append("reference=" + options.arguments[0])
    if options.on("tree"):
        return _tree(options, conditions)
    query = (
        ("all", options.on("all")),
        ("filters", filters(conditions)),
        ("digests", options.on("digests")),
    )
    images = Client(Settings.host).get("/images/json", query) or []
    images.sort(key=lambda image: -image["Created"])
    no_trunc = options.on("no-trunc")
    rows = [row for image in images for row in _named(image, digests=options.on("digests"))]
    output_format = options.text("format")
    if options.on("quiet") and output_format in ("", "table"):
        output_format = "{{.ID}}"
    default = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    if options.on("digests"):
        default = default.replace("\t{{.ID}}", "\t{{.Digest}}\t{{.ID}}")
    columns: dict[str, output_list.Column] = {
        "Repository": ("REPOSITORY", lambda row: row["Repository"]),
        "Tag": ("TAG", lambda row: row["Tag"]),
        "Digest": ("DIGEST", lambda row: row["Digest"]),
        "ID": ("IMAGE ID", lambda row: short_id(row["Id"], no_trunc)),
        "CreatedSince": ("CREATED", lambda row: times.ago(row["Created"])),
        "CreatedAt": ("CREATED AT", lambda row: times.local(row["Created"])),
        "Size": ("SIZE", lambda row: units.human_size(row["Size"], 3)),
        "Containers": ("CONTAINERS", lambda row: "N/A"
                       if row.get("Containers", -1) < 0 else str(row["Containers"])),
        "SharedSize": ("SHARED SIZE", lambda row: "N/A"
                       if row.get("SharedSize", -1) < 0
                       else units.human_size(row["SharedSize"], 3)),
        "UniqueSize": ("UNIQUE SIZE", lambda row: "N/A"
                       if row.get("SharedSize", -1) < 0
                       else units.human_size(row["Size"] - row["SharedSize"], 3)),
        "VirtualSize": ("SIZE", lambda row: units.human_size(row["Size"])),
    }  # fmt: skip
    output_list.show(rows, columns, default, output_format)
    return 0


def _tree(options: Options, conditions: list[str]) -> int:
    """Print each image with its platforms.

    :raises UsageError: when another flag changes the table.
    """
    from jaula.cli.images.image_tree import render
    from jaula.cli.output.user_terminal import size

    for name in ("quiet", "no-trunc", "digests", "format"):
        if options.is_set(name):
            raise UsageError(f"--{name} is not yet supported with --tree", status=1)
    query = (("all", options.on("all")), ("filters", filters(conditions)), ("manifests", True))
    images = Client(Settings.host).get("/images/json", query) or []
    if not options.on("all") and not any(text.startswith("dangling=") for text in conditions):
        images = [image for image in images if image.get("RepoTags")]
    for line in render(images, size(1)[1]):
        print(line)
    return 0


def _named(image: dict[str, Any], *, digests: bool) -> Iterator[dict[str, Any]]:
    tags: dict[str, list[str]] = {}
    for tag in image.get("RepoTags") or ():
        name, _, word = tag.rpartition(":")
        if not tag.startswith(NONE):
            tags.setdefault(name, []).append(word)
    digests_by_name: dict[str, list[str]] = {}
    for digest in image.get("RepoDigests") or ():
        name, _, value = digest.partition("@")
        if not digest.startswith(NONE):
            digests_by_name.setdefault(name, []).append(value)
    for name, words in tags.items():
        values = (digests_by_name.get(name) if digests else None) or [NONE]
        for word in words:
            for value in values:
                yield image | {"Repository": name, "Tag": word, "Digest": value}
    for name, values in digests_by_name.items():
        if name not in tags:
            for value in values if digests else [NONE]:
                yield image | {"Repository": name, "Tag": NONE, "Digest": value}
    if not tags and not digests_by_name:
        yield image | {"Repository": NONE, "Tag": NONE, "Digest": NONE}


COMMAND = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    run,
    flags=(
        Flag("all", "a", "bool", "Show all images"),
        Flag("digests", "", "bool", "Show digests"),
        Flag(
            "filter",
            "f",
            "list",
            "Filter output based on conditions provided (dangling=true, label=a=b, reference=b*)",
        ),
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
        Flag("tree", "", "bool", "List multi-platform images as a tree"),
    ),
    max_args=1,
    description="Lists the images in the engine, the newest first.",
    examples=(
        ("Untagged images", "jaula images -f dangling=true"),
        ("The platforms of each image", "jaula images --tree"),
    ),
    see_also=("load", "pull", "rmi", "history", "image bootstrap"),
    completes="image",
)
