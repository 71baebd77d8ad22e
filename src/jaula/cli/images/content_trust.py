"""Docker's content trust: ``--disable-content-trust``.

The engine does not verify signatures of Docker's content trust, so the flag is accepted only while
it is true. ``trust`` and ``image sign`` use cosign's signatures.
"""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.command_parser import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.command_parser import Options

FLAG = Flag(
    "disable-content-trust",
    "",
    "bool",
    "Skip image verification",
    default="true",
)


def check(options: Options) -> None:
    """Check that the flag is not set to false.

    :raises UsageError: when content trust is requested.
    """
    if not options.on("disable-content-trust", True):
        raise UsageError("Docker's content trust is not supported; pull by digest instead")
