"""``jaula cri setup``: write the configuration of crictl."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options
from jaula.cli.cri import write_new

DEFAULT = "/etc/crictl.yaml"
SOCKET = "/run/jaula/cri.sock"


def run(options: Options) -> int:
    """Write the file and print its path."""
    socket = options.text("socket", SOCKET).removeprefix("unix://")
    lines = [f"{kind}-endpoint: unix://{socket}\n" for kind in ("runtime", "image")]
    write_new(
        options.text("output", DEFAULT),
        "".join([*lines, "timeout: 10\n"]).encode(),
        force=options.on("force"),
    )
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Write the configuration of crictl",
    run,
    flags=(
        Flag("force", "f", "bool", "Replace an existing file"),
        Flag("output", "o", "string", "File to write", default=DEFAULT, completes="file"),
        Flag("socket", "", "string", "CRI socket of the engine", default=SOCKET, completes="file"),
    ),
    max_args=0,
    description="crictl then needs no option to find the engine. The engine serves CRI with --cri.",
    examples=(("Let crictl use the engine", "jaula cri setup && crictl pods"),),
    see_also=("cri cni-install", "daemon", "ps"),
)
