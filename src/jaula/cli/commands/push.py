"""``jaula push``."""

from __future__ import annotations

import sys

from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import content_trust, platform_flag, pull_progress, registry_auth
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any


def run(options: Options) -> int:
    """Push the image; with ``--all-tags`` every tag of its repository."""
    image, all_tags = pull_progress.repository_or_tag(options)
    name, tag = pull_progress.split_reference(image)
    chosen = platform_flag.query(options)
    if chosen:
        _note(
            "Using --platform pushes only the specified platform manifest of a multi-platform image"
            " index.\nOther components, like attestations, will not be included.\n"
            "To push the complete multi-platform image, remove the --platform flag.\n"
        )
    messages = Client(Settings.host).lines(
        "POST",
        f"/images/{quote(name, '/:')}/push",
        (("tag", "" if all_tags else tag), *chosen, *_compression(options)),
        registry_auth.headers(image),
    )
    notes: list[str] = []
    pull_progress.show_progress(_watched(messages, notes), sys.stdout, quiet=options.on("quiet"))
    if options.on("quiet"):
        print(image if all_tags else pull_progress.with_tag(image))
    for note in notes:
        _note(note)
    return 0


def _compression(options: Options) -> list[tuple[str, str]]:
    """Return the parameters of the requested compression."""
    flags = ("compression", "compression-level", "force-compression")
    return [(name, value) for name in flags if (value := options.text(name))]


def _watched(messages: Iterable[dict[str, Any]], notes: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the messages, and add a note for each index that was not pushed as a whole."""
    for message in messages:
        aux = message.get("aux") or {}
        if aux.get("manifestPushedInsteadOfIndex"):
            notes.append(
                "Not all multiplatform-content is present and only the available single-platform "
                "image was pushed\n"
                f"{aux['originalIndex']['digest']} -> {aux['selectedManifest']['digest']}"
            )
        yield message


def _note(text: str) -> None:
    """Print a note as Docker prints it."""
    header = " Info -> "
    first, *rest = text.split("\n")
    print(f"\n{header}{first}")
    for line in rest:
        print(" " * len(header) + line)


COMMAND = Command(
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    run,
    flags=(
        Flag("all-tags", "a", "bool", "Push all tags of an image to the repository"),
        Flag(
            "compression",
            "",
            "string",
            "Compression of the pushed layers (gzip, zstd, estargz, zstd:chunked, uncompressed)",
            completes=("gzip", "zstd", "estargz", "zstd:chunked", "uncompressed"),
        ),
        Flag("compression-level", "", "int", "Level of the compression"),
        content_trust.FLAG,
        Flag(
            "force-compression",
            "",
            "bool",
            "Convert layers that are compressed in another form, as --compression does by default",
        ),
        platform_flag.flag(
            "Push a platform-specific manifest as a single-platform image to the registry. Image "
            "index won't be pushed, meaning that other manifests, including attestations won't be "
            "preserved. 'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)"
        ),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Uploads the layers that the registry does not have, then the manifest. A pulled image "
        "is pushed unchanged, under the same digest, with its index if the engine has all of it. "
        "The layers of a loaded or imported image are compressed first. With --compression all "
        "layers are pushed in that form, under another digest. Other engines can start containers "
        "from estargz and zstd:chunked before they have the whole image, or fetch only the files "
        "that they lack. The image of the engine stays as it is."
    ),
    examples=(
        ("Push a tag", "jaula push registry.example.com/team/web:1.0"),
        (
            "Push layers that podman can fetch file by file",
            "jaula push --compression zstd:chunked registry.example.com/team/web:1.0",
        ),
    ),
    see_also=("pull", "login", "tag"),
    completes="image",
)
