"""``jaula manifest rm``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list


def run(options: Options) -> int:
    """Delete local manifest lists."""
    missing = []
    for text in options.arguments:
        name = manifest_list.full_name(text)
        manifests = manifest_list.ManifestList(name)
        if manifests.exists:
            manifests.remove()
        else:
            missing.append(f"No such manifest: {name}")
    if missing:
        raise CliError("\n".join(missing))
    return 0


COMMAND = Command(
    "MANIFEST_LIST [MANIFEST_LIST...]",
    "Delete one or more manifest lists from local storage",
    run,
    min_args=1,
    description="Nothing is removed from a registry.",
    examples=(("Delete a list", "jaula manifest rm r.io/web:1"),),
    see_also=("manifest create",),
)
