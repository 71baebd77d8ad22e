"""``jaula cri setup``: write the configuration of crictl, and a drop-in of the systemd unit."""

from __future__ import annotations

from jaula.cli.command_parser import Command, Flag, Options
from jaula.features.kubernetes.cli.cri_files import refuse_existing, write_new

DEFAULT = "/etc/crictl.yaml"
SOCKET = "/run/jaula/cri.sock"
DROP_IN = "jaula.service.d/cri.conf"
_DROP_IN_TEXT = """\
# Serve Kubernetes' CRI. The kubelet is started after the engine.
[Unit]
Before=kubelet.service

[Service]
ExecStart=
ExecStart=/usr/bin/jaula daemon --cri
"""


def run(options: Options) -> int:
    """Write the files and print their paths.

    :raises CliError: when one exists; none is written then.
    """
    socket = options.text("socket", SOCKET).removeprefix("unix://")
    lines = [f"{kind}-endpoint: unix://{socket}\n" for kind in ("runtime", "image")]
    files = {options.text("output", DEFAULT): "".join([*lines, "timeout: 10\n"])}
    if directory := options.text("unit-dir", ""):
        files[f"{directory.rstrip('/')}/{DROP_IN}"] = _DROP_IN_TEXT
    force = options.on("force")
    refuse_existing(files, force=force)
    for path, text in files.items():
        write_new(path, text.encode(), force=force)
    return 0


COMMAND = Command(
    "[OPTIONS]",
    "Write the configuration of crictl",
    run,
    flags=(
        Flag("force", "f", "bool", "Replace an existing file"),
        Flag("output", "o", "string", "File to write", default=DEFAULT, completes="file"),
        Flag("socket", "", "string", "CRI socket of the engine", default=SOCKET, completes="file"),
        Flag(
            "unit-dir",
            "",
            "string",
            f"Directory of systemd units in which to write {DROP_IN} as well",
            completes="file",
        ),
    ),
    max_args=0,
    description=(
        "crictl then needs no option to find the engine. The engine serves CRI with --cri. "
        "With --unit-dir a drop-in adds that flag to the engine's unit; the configuration file "
        "must not have the key cri then."
    ),
    examples=(
        ("Let crictl use the engine", "jaula cri setup && crictl pods"),
        (
            "Serve CRI from the next start of the host's engine on",
            "jaula cri setup --unit-dir /etc/systemd/system && systemctl daemon-reload",
        ),
    ),
    see_also=("cri cni-install", "daemon", "ps"),
)
