"""``jaula volume create``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers.options import pairs
from jaula.cli.errors import UsageError
from jaula.cli.main import Settings


def run(options: Options) -> int:
    """Create the volume and print its name."""
    name = options.text("name")
    if options.arguments:
        if name:
            raise UsageError(
                "conflicting options: either specify --name or provide positional arg, not both",
                status=1,
            )
        name = options.arguments[0]
    body = {
        "Name": name,
        "Driver": options.text("driver", "local"),
        "Labels": pairs(options.texts("label"), "label"),
        "DriverOpts": pairs(options.texts("opt"), "opt"),
    }
    body = {key: value for key, value in body.items() if value}
    print(Client(Settings.host).document("POST", "/volumes/create", (), body)["Name"])
    return 0


COMMAND = Command(
    "[OPTIONS] [VOLUME]",
    "Create a volume",
    run,
    flags=(
        Flag("driver", "d", "string", "Specify volume driver name", default="local"),
        Flag("label", "", "list", "Set metadata for a volume (key=value)"),
        Flag("name", "", "string", "Specify volume name"),
        Flag("opt", "o", "list", "Set driver specific options (key=value)"),
    ),
    max_args=1,
    description="Without a name the volume gets a random one.",
    examples=(("Create a volume", "jaula volume create data"),),
    see_also=("volume ls", "run"),
)
