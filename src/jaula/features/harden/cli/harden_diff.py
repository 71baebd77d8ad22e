"""``jaula harden diff``: what one of two profiles allows and the other does not."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Options


def run(options: Options) -> int:
    """Print the differences; 1 if there are any."""
    from jaula.cli.containers.profiles import open_profile

    before, after = (open_profile(path) for path in options.arguments)
    from jaula.features.harden.profile_diff import (
        compare,  # after open_profile, which finds the packages
    )
    from jaula.features.record.cli.record_output import printable

    changes = compare(before, after)
    for change in changes:
        print(f"{change.sign} {change.section} {printable(change.item)}")
    return 1 if changes else 0


COMMAND = Command(
    "FILE FILE",
    "Compare two profiles",
    run,
    min_args=2,
    max_args=2,
    description=(
        "Prints the items of the first profile that the second one lacks (-) and those that it "
        "has in addition (+). Evidence and notes are not compared."
    ),
    examples=(("Compare a new version of an image", "jaula harden diff web-1.toml web-2.toml"),),
    exit_status=(
        ("0", "both allow the same"),
        ("1", "they differ, or a file is not a profile"),
    ),
    see_also=("harden", "record diff"),
    completes="file",
)
