"""``jaula demo``: the guided tour."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Walk through the tour; 1 where a step does not show what it must."""
    from jaula.demo import tour

    only = [int(number) for word in options.texts("step") for number in word.split(",")]
    return tour.run(Settings.host, quick=options.on("quick"), only=only)


COMMAND = Command(
    "[OPTIONS]",
    "Show what jaula does in a guided tour with real containers",
    run,
    flags=(
        Flag("quick", "q", "bool", "Use busybox only, which is made in seconds"),
        Flag("step", "s", "list", "Only these steps (1 to 9)"),
    ),
    max_args=0,
    description=(
        "Nine steps: the host, a shell in a container, namespaces, users, cgroups, capabilities, "
        "copy on write, archives, and the engine's proof of isolation. Each prints what it does, "
        "the command to type, and what the kernel says. Images are made from the host's package "
        "mirror where they are missing; the tour's containers are removed at its end."
    ),
    examples=(("The short way", "jaula demo --quick"),),
    exit_status=(("0", "every step showed what it must"), ("1", "one did not")),
    see_also=("check", "verify", "image bootstrap"),
)
