"""``jaula manifest rm``."""

from __future__ import annotations

from jaula.cli import manifest_lists
from jaula.cli.failure import Failure
from jaula.cli.flags import Command, Options


def run(options: Options) -> int:
    """Forget lists that were begun here."""
    missing = []
    for text in options.arguments:
        name = manifest_lists.full_name(text)
        made = manifest_lists.ManifestList(name)
        if made.exists:
            made.remove()
        else:
            missing.append(f"No such manifest: {name}")
    if missing:
        raise Failure("\n".join(missing))
    return 0


COMMAND = Command(
    "MANIFEST_LIST [MANIFEST_LIST...]",
    "Remove lists of images that were not pushed",
    run,
    least=1,
    description="Nothing is removed at a registry.",
    examples=(("A list", "jaula manifest rm r.io/web:1"),),
    see_also=("manifest create",),
)
