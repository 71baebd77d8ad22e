"""``jaula pod start``."""

from __future__ import annotations

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers.attach import SDNOTIFY
from jaula.cli.errors import UsageError
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.pods import pods, select
from jaula.features.kubernetes.cli.pods.supervise import supervise


def run(options: Options) -> int:
    """Start the pods; with ``--wait`` stay until they have ended."""
    if not options.on("wait"):
        only = options.on("infra-only")
        return select.each(options, lambda c, pod: pods.start(c, pod, infra_only=only))
    client = Client(Settings.host)
    selected = select.pods_of(client, options)
    if len(selected) != 1:
        raise UsageError("--wait is for one pod")
    (pod,) = selected
    with supervise(options.text("sdnotify", "ignore")) as service:
        pods.start(client, pod, infra_only=options.on("infra-only"))
        print(pod.name, flush=True)
        service.ready()
        pods.wait(client, [pod.name], service.ended)
        pods.stop(client, pods.find(client, pod.id))
    return 0


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Start one or more pods",
    run,
    flags=(
        Flag("infra-only", "", "bool", "Start the infra container only"),
        SDNOTIFY,
        Flag("wait", "", "bool", "Stay until the pod has ended; a signal stops it"),
        *select.FLAGS,
    ),
    description="Starts the infra container of each pod, then its containers.",
    examples=(("Start a pod", "jaula pod start web"),),
    see_also=("pod create", "pod stop", "pod restart"),
    completes="pod",
)
