"""How long ``stop`` and ``restart`` are patient."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.flags import Options


def seconds_to_stop(options: Options) -> str:
    """The ``t`` of the API, empty where the container's own time applies."""
    for name in ("time", "timeout"):
        if options.given(name):
            return str(options.number(name))
    return ""
