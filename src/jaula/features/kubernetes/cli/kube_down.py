"""``jaula kube down``."""

from __future__ import annotations

from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.kube import play, yaml_source


def run(options: Options) -> int:
    """Remove what the file describes."""
    path = options.arguments[0]
    names = play.names_of(path, yaml_source.read(path))
    play.down(Client(Settings.host), names, force=options.on("force"))
    return 0


COMMAND = Command(
    "[OPTIONS] FILE|URL|-",
    "Remove pods, secrets and volumes of Kubernetes' YAML",
    run,
    flags=(Flag("force", "", "bool", "Remove volumes of claims too"),),
    min_args=1,
    max_args=1,
    description=(
        "Stops and removes the pods and secrets of the file. Volumes of claims stay, unless "
        "--force is set. What is absent is not an error."
    ),
    examples=(("Remove a played file", "jaula kube down web.yaml"),),
    see_also=("kube play",),
    completes="file",
)
