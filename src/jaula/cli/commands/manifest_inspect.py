"""``jaula manifest inspect``."""

from __future__ import annotations

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list, registry_auth
from jaula.cli.main import Settings
from jaula.spec.fast_json import decode, pretty


def run(options: Options) -> int:
    """Print a list that was begun here, or what a registry has under a name."""
    if len(options.arguments) == 2:
        return _member(*options.arguments, verbose=options.on("verbose"))
    name = options.arguments[0]
    made = manifest_list.ManifestList(manifest_list.full_name(name))
    if made.exists:
        shown = made.manifests() if options.on("verbose") else decode(made.document()[1])
        print(pretty(shown, "\t"))
        return 0
    found = Client(Settings.host).document(
        "GET",
        f"/jaula/manifests/{quote(name, '/:@')}",
        (),
        None,
        registry_auth.headers(name),
    )
    if not options.on("verbose"):
        print(pretty(decode(found["Content"]), "\t"))
        return 0
    manifests = found.get("Manifests")
    if manifests is None:
        print(pretty(manifest_list.manifest_entry(name, found), "\t"))
        return 0
    repository = name.partition("@")[0]
    details = [
        manifest_list.manifest_entry(f"{repository}@{m['Descriptor']['digest']}", m)
        for m in manifests
    ]
    print(pretty(details, "\t"))
    return 0


def _member(list_name: str, name: str, *, verbose: bool) -> int:
    made = manifest_list.ManifestList(manifest_list.full_name(list_name))
    wanted = manifest_list.full_name(name)
    listed = made.manifests() if made.exists else []
    manifest = next((m for m in listed if m["Ref"] == wanted), None)
    if manifest is None:
        raise CliError(f"manifest for image {wanted} does not exist in {made.name}")
    print(pretty(manifest if verbose else decode(manifest_list.raw(manifest)), "\t"))
    return 0


COMMAND = Command(
    "[OPTIONS] [MANIFEST_LIST] NAME[:TAG|@DIGEST]",
    "Show what a registry has under a name",
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
        "Prints a list that was begun here (manifest create); otherwise the manifest, or the list "
        "of manifests for several platforms, that a registry has, without fetching the image. The "
        "engine asks the registry, with its certificates and proxies."
    ),
    examples=(("For which platforms an image is", "jaula manifest inspect debian:13"),),
    see_also=("pull", "image inspect"),
)
