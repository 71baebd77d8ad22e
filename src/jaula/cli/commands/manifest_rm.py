"""``jaula manifest rm``."""

from __future__ import annotations

from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError
from jaula.cli.images import manifest_list


def run(options: Options) -> int:
    """Forget lists that were begun here."""
    missing = []
    for text in options.arguments:
        name = manifest_list.full_name(text)
        made = manifest_list.ManifestList(name)
        if made.exists:
            made.remove()
        else:
            missing.append(f"No such manifest: {name}")
    if missing:
        raise CliError("\n".join(missing))
    return 0


COMMAND = Command(
    "MANIFEST_LIST [MANIFEST_LIST...]",
    "Remove lists of images that were not pushed",
    run,
    min_args=1,
    description="Nothing is removed at a registry.",
    examples=(("A list", "jaula manifest rm r.io/web:1"),),
    see_also=("manifest create",),
)
