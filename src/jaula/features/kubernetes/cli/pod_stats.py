"""``jaula pod stats``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Options
from jaula.cli.commands import stats
from jaula.cli.containers.stats import Sampler
from jaula.cli.errors import CliError
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.pods import pods, select


def run(options: Options) -> int:
    """Show the resource usage of the containers of pods, updated every second, or once."""
    client = Client(Settings.host)
    everything = options.on("all") or not (options.arguments or options.on("latest"))
    selected = pods.listed(client) if everything else select.pods_of(client, options)
    pod_of = {
        entry["Id"]: pod.name
        for pod in selected
        for entry in pod.containers
        if entry["State"] in ("running", "paused")
    }
    if not pod_of:
        raise CliError("no container of a pod is running", status=pods.NO_POD)
    columns = {
        "Pod": ("POD", lambda usage: pod_of[usage.id]),
        **stats.columns(no_trunc=options.on("no-trunc")),
    }
    stats.show(Sampler(client, list(pod_of)), columns, "{{.Pod}}\t" + stats.DEFAULT, options)
    return 0


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Display a live stream of the resource usage of pods",
    run,
    flags=(*stats.COMMAND.flags, select.LATEST),
    description="Shows each running container of the pods, by default of all pods.",
    examples=(("Print one sample of a pod", "jaula pod stats --no-stream web"),),
    see_also=("stats", "pod top"),
    completes="pod",
)
