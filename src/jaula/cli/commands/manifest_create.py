"""``jaula manifest create``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list, registry_auth
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Create a local manifest list from images at registries."""
    name, *members = options.arguments
    manifests = manifest_list.ManifestList(manifest_list.full_name(name))
    if manifests.exists and not options.on("amend"):
        raise CliError("refusing to amend an existing manifest list with no --amend flag")
    client = Client(Settings.host)
    entries = []
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
        entries.append(manifest_list.manifest_entry(manifest_list.full_name(member), document))
    for manifest in entries:
        manifests.put(manifest)
    print(f"Created manifest list {manifests.name}")
    return 0


COMMAND = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Create a local manifest list for annotating and pushing to a registry",
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
        "The manifests are fetched from their registries. The list is stored in docker's files "
        "until it is pushed."
    ),
    examples=(
        (
            "Create a list of two images",
            "jaula manifest create r.io/web:1 r.io/web:amd64 r.io/web:arm",
        ),
    ),
    see_also=("manifest annotate", "manifest push"),
)
