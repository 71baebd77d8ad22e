"""``jaula kube generate``."""

from __future__ import annotations

import sys

from jaula.cli import site_packages
from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.kube import play
from jaula.features.kubernetes.cli.pods import api_pods
from jaula.features.kubernetes.kube import generate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(options: Options) -> int:
    """Write the YAML of the pods and containers."""
    site_packages.enable()
    client = Client(Settings.host)
    kind = options.text("type", "pod").lower()
    if kind not in generate.KINDS:
        raise CliError(f"--type must be one of {', '.join(generate.KINDS)}")
    replicas = options.number("replicas", 1)
    if replicas != 1 and (kind != "deployment" or replicas < 1):
        raise CliError("--replicas must be a positive number, and is for --type=deployment")
    stored = play.stored(client)
    known = {pod.name: pod for pod in api_pods.listed(client)}
    known |= {pod.id: pod for pod in known.values()}
    planned: list[tuple[str, dict[str, Any] | None, list[dict[str, Any]]]] = []
    loose = []
    for name in options.arguments:
        if name in known:
            pod = known[name]
            infra, *members = [client.get(f"/containers/{c['Id']}/json") for c in pod.containers]
            planned.append((pod.name, infra, members))
        else:
            loose.append(client.get(f"/containers/{quote(name)}/json"))
    if loose:
        name = str(loose[0]["Name"]).lstrip("/")
        planned.insert(0, (f"{name}-pod", None, loose))
    documents = []
    for name, holder, containers in planned:
        if not containers:
            raise CliError(f"the pod {name} has no container")
        for file in generate.unknown_files(containers, stored):
            sys.stderr.write(f"WARNING: {file} is left out: no Secret or ConfigMap has made it\n")
        documents += generate.config_maps(containers, stored)
        document = generate.pod(name, holder, containers, stored)
        if options.on("service") and (service := generate.service(document)):
            documents.append(service)
        documents.append(generate.controller(document, kind, replicas))
    text = generate.render(documents)
    if path := options.text("filename"):
        with open(path, "x", encoding="utf-8") as output:
            output.write(text)
    else:
        print(text, end="")
    return 0


COMMAND = Command(
    "[OPTIONS] CONTAINER|POD [CONTAINER|POD...]",
    "Write Kubernetes' YAML of containers or pods",
    run,
    flags=(
        Flag("filename", "f", "string", "Write to a file, which must not exist", completes="file"),
        Flag(
            "replicas",
            "r",
            "int",
            "Number of replicas in a Deployment",
            default="1",
        ),
        Flag("service", "s", "bool", "Write a Service for the ports too"),
        Flag(
            "type",
            "t",
            "string",
            "Kind of the object",
            default="pod",
            completes=generate.KINDS,
        ),
    ),
    min_args=1,
    description=(
        "Writes YAML that `kube play` and Kubernetes read. Containers that are not in a pod become "
        "the containers of one pod."
    ),
    examples=(("Write the YAML of a container", "jaula kube generate web > web.yaml"),),
    see_also=("kube play",),
    completes="container",
)
