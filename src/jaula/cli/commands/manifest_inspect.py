"""``jaula manifest inspect``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list, registry_auth
from jaula.cli.main import Settings
from jaula.spec.fast_json import decode, pretty


def run(options: Options) -> int:
    """Print a local manifest list, or the manifest of a reference at its registry."""
    if len(options.arguments) == 2:
        return _member(*options.arguments, verbose=options.on("verbose"))
    name = options.arguments[0]
    local_list = manifest_list.ManifestList(manifest_list.full_name(name))
    if local_list.exists:
        output = (
            local_list.manifests() if options.on("verbose") else decode(local_list.document()[1])
        )
        print(pretty(output, "\t"))
        return 0
    document = Client(Settings.host).document(
        "GET",
        f"/jaula/manifests/{quote(name, '/:@')}",
        (),
        None,
        registry_auth.headers(name),
    )
    if not options.on("verbose"):
        print(pretty(decode(document["Content"]), "\t"))
        return 0
    manifests = document.get("Manifests")
    if manifests is None:
        print(pretty(manifest_list.manifest_entry(name, document), "\t"))
        return 0
    repository = name.partition("@")[0]
    details = [
        manifest_list.manifest_entry(f"{repository}@{m['Descriptor']['digest']}", m)
        for m in manifests
    ]
    print(pretty(details, "\t"))
    return 0


def _member(list_name: str, name: str, *, verbose: bool) -> int:
    local_list = manifest_list.ManifestList(manifest_list.full_name(list_name))
    reference = manifest_list.full_name(name)
    entries = local_list.manifests() if local_list.exists else []
    manifest = next((m for m in entries if m["Ref"] == reference), None)
    if manifest is None:
        raise CliError(f"manifest for image {reference} does not exist in {local_list.name}")
    print(pretty(manifest if verbose else decode(manifest_list.raw(manifest)), "\t"))
    return 0


COMMAND = Command(
    "[OPTIONS] [MANIFEST_LIST] NAME[:TAG|@DIGEST]",
    "Display an image manifest, or manifest list",
    run,
    flags=(
        Flag(
            "insecure",
            "",
            "bool",
            "Allow communication with an insecure registry (no effect: set on the engine)",
        ),
        Flag("verbose", "v", "bool", "Output additional info including layers and platform"),
    ),
    min_args=1,
    max_args=2,
    description=(
        "Prints a local manifest list (manifest create). If there is none, prints the manifest "
        "or manifest list at the registry, without pulling the image. The engine queries the "
        "registry, with its certificates and proxies."
    ),
    examples=(("Print the platforms of an image", "jaula manifest inspect debian:13"),),
    see_also=("pull", "image inspect"),
)
