"""``jaula manifest create``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list, registry_auth
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Begin a list of manifests that registries have."""
    name, *members = options.arguments
    made = manifest_list.ManifestList(manifest_list.full_name(name))
    if made.exists and not options.on("amend"):
        raise CliError("refusing to amend an existing manifest list with no --amend flag")
    client = Client(Settings.host)
    found = []
    for member in members:
        document = client.document(
            "GET",
            f"/jaula/manifests/{quote(member, '/:@')}",
            (),
            None,
            registry_auth.headers(member),
        )
        if document.get("Manifests") is not None:
            raise CliError(f"{member} is a manifest list")
        found.append(manifest_list.manifest_entry(manifest_list.full_name(member), document))
    for manifest in found:
        made.put(manifest)
    print(f"Created manifest list {made.name}")
    return 0


COMMAND = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Begin a list of images for several platforms",
    run,
    flags=(
        Flag("amend", "a", "bool", "Amend an existing manifest list"),
        Flag(
            "insecure",
            "",
            "bool",
            "Allow communication with an insecure registry (no effect: set on the engine)",
        ),
    ),
    min_args=2,
    description=(
        "The images are looked up at their registries, and the list is kept in docker's own files "
        "until it is pushed."
    ),
    examples=(
        (
            "Two images under one name",
            "jaula manifest create r.io/web:1 r.io/web:amd64 r.io/web:arm",
        ),
    ),
    see_also=("manifest annotate", "manifest push"),
)
