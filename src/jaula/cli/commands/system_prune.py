"""``jaula system prune``."""

from __future__ import annotations

from jaula.cli.client.client import Client, filters
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import EngineError
from jaula.cli.images import prune
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Prompt once, then prune containers, networks, volumes, images and the build cache."""
    client = Client(Settings.host)
    everything, volumes = options.on("all"), options.on("volumes")
    rows = [
        "all stopped containers",
        "all networks not used by at least one container",
        *(["all anonymous volumes not used by at least one container"] if volumes else []),
        "all images without at least one container associated to them"
        if everything
        else "all dangling images",
        "all build cache" if everything else "unused build cache",
    ]
    warning = "This will remove:\n" + "".join(f"  - {row}\n" for row in rows)
    prune.confirm(warning, force=options.on("force"))
    conditions = options.texts("filter")
    lines, total = prune.prune_objects(client, "containers", filters(conditions))
    prune.print_deleted("Deleted Containers", lines)
    lines, _ = prune.prune_objects(client, "networks", filters(conditions))
    prune.print_deleted("Deleted Networks", lines)
    if volumes:
        lines, freed = prune.prune_objects(client, "volumes", filters(conditions))
        total += freed
        prune.print_deleted("Deleted Volumes", lines)
    dangling = "dangling=false" if everything else "dangling=true"
    lines, freed = prune.prune_images(client, filters([*conditions, dangling]))
    total += freed
    prune.print_deleted("Deleted Images", lines)
    try:
        lines, freed = prune.prune_build_cache(client, conditions, all_entries=everything)
    except EngineError as error:
        if error.code != 404:
            raise
        lines, freed = [], 0  # an engine without the feature of builds has no cache
    total += freed
    prune.print_deleted("Deleted build cache objects", lines)
    prune.print_reclaimed(total)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Remove unused data",
    run,
    flags=(
        Flag("all", "a", "bool", "Remove all unused images not just dangling ones"),
        prune.FILTER,
        prune.FORCE,
        Flag("volumes", "", "bool", "Prune anonymous volumes"),
    ),
    max_args=0,
    description="Removes exited containers, unused networks and images, and the build cache.",
    examples=(("Do not prompt", "jaula system prune -f"),),
    see_also=("system df", "container prune", "image prune", "volume prune", "builder prune"),
)
