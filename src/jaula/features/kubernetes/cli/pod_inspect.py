"""``jaula pod inspect``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Options
from jaula.cli.errors import CliError, UsageError
from jaula.cli.main import Settings
from jaula.cli.output import inspect
from jaula.features.kubernetes.cli.pods import pods, select
from jaula.features.kubernetes.cli.pods.list import container_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(options: Options) -> int:
    """Print the pods and their containers; those that exist also if others do not."""
    client = Client(Settings.host)
    found: list[pods.Pod] = []
    missing: list[CliError] = []
    if options.on("latest"):
        found.append(select.latest(client))
    elif not options.arguments:
        raise UsageError(
            f'"jaula {options.command.path}" requires at least 1 argument.', status=1, usage=True
        )
    for ref in options.arguments:
        try:
            found.append(pods.find(client, ref))
        except CliError as error:
            if error.status != pods.NO_POD:
                raise
            missing.append(error)
    inspect.print_documents([_document(client, pod) for pod in found], options.text("format"))
    for absent in missing:
        sys.stderr.write(absent.message + "\n")
    return pods.NO_POD if missing else 0


def _document(client: Client, pod: pods.Pod) -> dict[str, Any]:
    infra = client.get(f"/containers/{pod.id}/json")
    labels = infra["Config"]["Labels"]
    host = infra["HostConfig"]
    return {
        "Id": pod.id,
        "Name": pod.name,
        "Created": infra["Created"],
        "State": pod.status,
        "Hostname": infra["Config"]["Hostname"],
        "Labels": labels,
        "ExitPolicy": labels.get(pods.EXIT_POLICY_LABEL, "continue"),
        "RestartPolicy": labels.get(pods.RESTART_LABEL, ""),
        "InfraContainerID": pod.id,
        "InfraConfig": {
            "PortBindings": host.get("PortBindings") or {},
            "HostNetwork": host["NetworkMode"] == "host",
            "Networks": sorted(infra["NetworkSettings"]["Networks"]),
            "DNSServer": host.get("Dns") or [],
            "DNSSearch": host.get("DnsSearch") or [],
            "DNSOption": host.get("DnsOptions") or [],
            "HostAdd": host.get("ExtraHosts") or [],
        },
        "SharedNamespaces": sorted({*pod.shared, "user"}),
        "NumContainers": len(pod.containers),
        "Containers": [
            {"Id": entry["Id"], "Name": container_name(entry), "State": entry["State"]}
            for entry in pod.containers
        ],
    }


COMMAND = Command(
    "[OPTIONS] [POD...]",
    "Display detailed information on one or more pods",
    run,
    flags=(inspect.FORMAT, select.LATEST),
    description="Prints the pods with their shared namespaces, ports and containers as JSON.",
    examples=(("Show a pod", "jaula pod inspect web"),),
    see_also=("pod ls", "inspect"),
    completes="pod",
)
