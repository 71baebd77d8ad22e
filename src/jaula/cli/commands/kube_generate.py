"""``jaula kube generate``."""

from __future__ import annotations

from jaula.cli import site_packages
from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError
from jaula.cli.main import Settings
from jaula.cli.pods import pods
from jaula.kube import generate


def run(options: Options) -> int:
    """Write the YAML of the pods and containers."""
    site_packages.enable()
    client = Client(Settings.host)
    kind = options.text("type", "pod").lower()
    if kind not in generate.KINDS:
        raise CliError(f"--type must be one of {', '.join(generate.KINDS)}")
    known = {pod.name: pod for pod in pods.listed(client)}
    known |= {pod.id: pod for pod in known.values()}
    documents = []
    loose = []
    for name in options.arguments:
        if name in known:
            pod = known[name]
            entries = [pod.infra, *pod.members]
            inspected = [client.get(f"/containers/{entry['Id']}/json") for entry in entries]
            documents.append(generate.pod(pod.name, inspected[0], inspected[1:]))
        else:
            loose.append(client.get(f"/containers/{quote(name)}/json"))
    if loose:
        name = str(loose[0]["Name"]).lstrip("/")
        documents.insert(0, generate.pod(f"{name}-pod", None, loose))
    text = "---\n".join(generate.render(document, kind) for document in documents)
    if path := options.text("filename"):
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
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
            "type",
            "t",
            "string",
            "Kind of the object",
            default="pod",
            completes=("pod", "deployment"),
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
