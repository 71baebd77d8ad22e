"""``jaula manifest annotate``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list

FIELDS = {"arch": "architecture", "os": "os", "os-version": "os.version", "variant": "variant"}


def run(options: Options) -> int:
    """Say for which platform an image of a list is."""
    name, member = (manifest_list.full_name(text) for text in options.arguments)
    made = manifest_list.ManifestList(name)
    if not made.exists:
        raise CliError(f"No such manifest: {name}")
    manifest = next((m for m in made.manifests() if m["Ref"] == member), None)
    if manifest is None:
        raise CliError(f"manifest for image {member} does not exist in {name}")
    platform = dict(manifest["Descriptor"].get("platform") or {})
    for flag, field in FIELDS.items():
        if options.is_set(flag):
            platform[field] = options.text(flag)
    features = [word for text in options.texts("os-features") for word in text.split(",") if word]
    if features:
        platform["os.features"] = [*platform.get("os.features", ()), *features]
    manifest["Descriptor"]["platform"] = platform
    made.put(manifest)
    return 0


COMMAND = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    "Say for which platform an image of a list is",
    run,
    flags=(
        Flag("arch", "", "string", "Set architecture"),
        Flag("os", "", "string", "Set operating system"),
        Flag("os-features", "", "list", "Set operating system feature"),
        Flag("os-version", "", "string", "Set operating system version"),
        Flag("variant", "", "string", "Set architecture variant"),
    ),
    min_args=2,
    max_args=2,
    description=(
        "What is not said is what the image's own configuration says. A list is pushed only where "
        "each of its images has an architecture and an operating system."
    ),
    examples=(("An older ARM", "jaula manifest annotate --variant v6 r.io/web:1 r.io/web:arm"),),
    see_also=("manifest create", "manifest push"),
)
