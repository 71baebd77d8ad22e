"""``jaula manifest annotate``."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list

FIELDS = {"arch": "architecture", "os": "os", "os-version": "os.version", "variant": "variant"}


def run(options: Options) -> int:
    """Set the platform of an image in a local manifest list."""
    name, member = (manifest_list.full_name(text) for text in options.arguments)
    manifests = manifest_list.ManifestList(name)
    if not manifests.exists:
        raise CliError(f"No such manifest: {name}")
    manifest = next((m for m in manifests.manifests() if m["Ref"] == member), None)
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
    manifests.put(manifest)
    return 0


COMMAND = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    "Add additional information to a local image manifest",
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
        "A field that is not set keeps the value of the image's configuration. A list can be "
        "pushed only if each of its images has an architecture and an operating system."
    ),
    examples=(
        ("Set the ARM variant", "jaula manifest annotate --variant v6 r.io/web:1 r.io/web:arm"),
    ),
    see_also=("manifest create", "manifest push"),
)
