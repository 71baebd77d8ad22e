"""``jaula checkpoint create``."""

from __future__ import annotations

import sys
from typing import Any

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.features.checkpoint.cli import request as checkpoint
from jaula.spec.units import human_size


def run(options: Options) -> int:
    """Create the checkpoint and print its name."""
    container, name = options.arguments
    members: dict[str, object] = {
        "Exit": not options.on("leave-running"),
        "Files": options.on("with-files"),
    }
    if rounds := options.number("pre-copy"):
        members["PreCopy"] = rounds
    client = Client(Settings.host)
    checkpoint.create(client, options, members)
    if rounds:
        path = f"/jaula/containers/{quote(container)}/checkpoints/{quote(name)}"
        _print_rounds(client.get(path, checkpoint.query(options)))
    print(name)
    return 0


def _print_rounds(document: dict[str, Any]) -> None:
    """Print what each round of the pre-copy has written, and how long the container stood still."""
    sizes = document.get("PreCopy", [])
    failure = document.get("PreCopyFailure", "")
    if not sizes and not failure:
        print(
            "no pre-copy: this kernel does not track written pages (CONFIG_MEM_SOFT_DIRTY)",
            file=sys.stderr,
        )
    for number, size in enumerate(sizes, 1):
        print(f"round {number}: {human_size(size)} while the container ran", file=sys.stderr)
    if failure:
        print(
            f"warning: round {len(sizes) + 1} failed, so all memory was written while the container"
            f" stood still: {failure}",
            file=sys.stderr,
        )
    pause = document.get("Stopped", 0) / 1e9
    print(f"the container stood still for {pause:.2f} s", file=sys.stderr)


COMMAND = Command(
    "[OPTIONS] CONTAINER CHECKPOINT",
    "Create a checkpoint from a running container",
    run,
    flags=(
        Flag("leave-running", "", "bool", "Leave the container running after checkpoint"),
        Flag("pre-copy", "", "int", "Write memory in up to so many rounds before it stops"),
        Flag("with-files", "", "bool", "Save the changed files of the root, and the volumes"),
        *checkpoint.FLAGS,
    ),
    min_args=2,
    max_args=2,
    description=(
        "Saves the memory and the open files of all processes with CRIU. The container exits "
        "unless --leave-running is given. jaula start --checkpoint continues it."
    ),
    examples=(
        ("Save a service before a reboot", "jaula checkpoint create web before-reboot"),
        ("Continue it afterwards", "jaula start --checkpoint before-reboot web"),
        ("Save its files as well", "jaula checkpoint create --with-files web before-upgrade"),
    ),
    see_also=("checkpoint ls", "checkpoint inspect", "checkpoint rm", "start"),
    completes="container",
)
