"""What ``stop`` and ``restart`` share: the signal that they send and how long they are patient."""

from __future__ import annotations

from jaula.cli.command import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.command import Options

FLAGS = (
    Flag("signal", "s", "string", "Signal to send instead of the container's own"),
    Flag("time", "t", "int", "Seconds to wait before SIGKILL; -1 waits for ever"),
    Flag("timeout", "", "int", "The same as --time"),
)


def query(options: Options) -> tuple[tuple[str, str], ...]:
    """What the API is asked; empty values leave it to the container's own signal and time."""
    seconds = next(
        (str(options.number(name)) for name in ("time", "timeout") if options.given(name)), ""
    )
    return (("signal", options.text("signal")), ("t", seconds))
