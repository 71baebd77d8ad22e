"""Docker's content trust, which this engine does not have; its flag is taken as far as it is true.

Signatures of images are of another kind here, see ``trust`` and ``image sign``.
"""

from __future__ import annotations

from jaula.cli.command import Flag
from jaula.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.command import Options

FLAG = Flag(
    "disable-content-trust",
    "",
    "bool",
    "Do without the signatures of Docker's content trust",
    default="true",
)


def check(options: Options) -> None:
    """Refuse to be asked for what is not checked. Raises UsageError."""
    if not options.on("disable-content-trust", True):
        raise UsageError("Docker's content trust is not checked; pull by digest instead")
