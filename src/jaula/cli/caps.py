"""``jaula caps``: decode capability masks, and encode names as a mask."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError
from jaula.cli.command_parser import Command, Options

DIGITS = frozenset("0123456789abcdef")


def run(options: Options) -> int:
    """Decode masks or encode names; without arguments print a container's default set."""
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.errors import JaulaError
    from jaula.security import capability_sets

    words = options.arguments
    try:
        if not words:
            print(_decoded(capability_sets.mask(capability_sets.DEFAULT)))
        elif all(set(word.lower().removeprefix("0x")) <= DIGITS for word in words):
            for word in words:
                print(_decoded(capability_sets.parse_mask(word)))
        else:
            names = [name for word in words for name in word.split(",") if name]
            print(f"{capability_sets.mask(names):016x}")
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    return 0


def _decoded(mask: int) -> str:
    from jaula.security import capability_sets

    return f"{mask:016x}=" + ",".join(name.lower() for name in capability_sets.decode(mask))


COMMAND = Command(
    "[MASK...|NAME...]",
    "Decode a capability mask, or encode names as one",
    run,
    description=(
        "Reads masks in the form of /proc/PID/status (CapEff: 00000000a80425fb) and prints "
        "their capabilities. Names of capabilities give the mask. Without arguments it prints "
        "the default set of a container."
    ),
    examples=(
        ("Decode a mask", "jaula caps a80425fb"),
        ("Encode names", "jaula caps net_bind_service,chown"),
    ),
    exit_status=(("1", "a mask is too wide, or a name is unknown"),),
    see_also=("verify", "run"),
)
