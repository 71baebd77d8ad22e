"""``jaula pod inspect``."""

from __future__ import annotations

import json

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Options
from jaula.cli.main import Settings
from jaula.cli.pods import pods


def run(options: Options) -> int:
    """Print the pods and their containers."""
    client = Client(Settings.host)
    result = []
    for ref in options.arguments:
        pod = pods.find(client, ref)
        infra = client.get(f"/containers/{pod.id}/json")
        result.append(
            {
                "Id": pod.id,
                "Name": pod.name,
                "Created": infra["Created"],
                "State": pod.status,
                "Hostname": infra["Config"]["Hostname"],
                "Labels": infra["Config"]["Labels"],
                "ExitPolicy": infra["Config"]["Labels"].get(pods.EXIT_POLICY_LABEL, "continue"),
                "InfraContainerID": pod.id,
                "InfraConfig": {
                    "PortBindings": infra["HostConfig"].get("PortBindings") or {},
                    "HostNetwork": infra["HostConfig"]["NetworkMode"] == "host",
                    "Networks": sorted(infra["NetworkSettings"]["Networks"]),
                },
                "SharedNamespaces": ["ipc", "net", "user", "uts"],
                "NumContainers": len(pod.members) + 1,
                "Containers": [
                    {"Id": c["Id"], "Name": c["Names"][0].lstrip("/"), "State": c["State"]}
                    for c in (pod.infra, *pod.members)
                ],
            }
        )
    print(json.dumps(result, indent=4))
    return 0


COMMAND = Command(
    "POD [POD...]",
    "Display detailed information on one or more pods",
    run,
    min_args=1,
    description="Prints the pods with their shared namespaces, ports and containers as JSON.",
    examples=(("Show a pod", "jaula pod inspect web"),),
    see_also=("pod ls", "inspect"),
)
