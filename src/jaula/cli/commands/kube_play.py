"""``jaula kube play``."""

from __future__ import annotations

import sys

from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers import flags as container_flags
from jaula.cli.containers.attach import SDNOTIFY
from jaula.cli.containers.options import pairs
from jaula.cli.errors import UsageError
from jaula.cli.kube import play
from jaula.cli.main import Settings
from jaula.cli.pods import pods
from jaula.cli.pods.supervise import supervise
from jaula.kube import plan as kube_plan

_PROPAGATION = ("none", "any", "all")
_SHARED = ("log-driver", "log-opt", "network", "publish", "userns", "annotation", "label", "quiet")


def run(options: Options) -> int:
    """Make the objects of the file; with ``--wait`` stay until the pods have ended."""
    path = options.arguments[0]
    propagation = options.text("service-exit-code-propagation", "none")
    if propagation not in _PROPAGATION:
        raise UsageError(f"--service-exit-code-propagation must be {', '.join(_PROPAGATION)}")
    client = Client(Settings.host)
    objects = play.read(path)
    maps = [entry for file in options.texts("configmap") for entry in play.read(file)]
    for entry in maps:
        if entry["kind"] != "ConfigMap":
            raise UsageError(f"--configmap: {entry['kind']} is not a ConfigMap")
    plan = play.plan_of(path, objects, _options(options), maps)
    for warning in plan.warnings:
        sys.stderr.write(f"WARNING: {warning}\n")
    if options.on("down"):
        play.down(client, plan, force=options.on("force"))
        return 0
    if options.on("replace"):
        play.down(client, plan, force=False, quiet=True)
    action = play.Play(
        client,
        options.texts("network"),
        start=options.on("start", True),
        quiet=options.on("quiet"),
    )
    if not options.on("wait"):
        action.run(plan)
        return 0
    with supervise(options.text("sdnotify", "ignore")) as service:
        names = action.run(plan)
        service.ready()
        pods.wait(client, names, service.ended)
        client = Client(Settings.host)
        codes = [
            code
            for pod in pods.listed(client)
            if pod.name in names
            for code in pods.exit_codes(client, pod)
        ]
        if not options.is_set("sdnotify") or service.signalled:
            play.down(client, plan, force=False, quiet=service.signalled)
    return _status(codes, "none" if service.signalled else propagation)


def _status(codes: list[int], propagation: str) -> int:
    """Return the exit status from those of the containers, as podman's service container."""
    failed = [code for code in codes if code]
    if propagation == "any":
        return failed[0] if failed else 0
    if propagation == "all":
        return failed[0] if codes and len(failed) == len(codes) else 0
    return 0


def _options(options: Options) -> kube_plan.Options:
    result = kube_plan.Options(
        publish_all=options.on("publish-all"),
        userns=options.text("userns"),
        labels=pairs(options.texts("label"), "label"),
        annotations=pairs(options.texts("annotation"), "annotation"),
    )
    if options.is_set("publish"):
        from jaula.cli.containers import publish_option

        result.publish = (publish_option.documents(options.texts("publish"), [])[1],)
    if options.is_set("log-driver") or options.is_set("log-opt"):
        result.log = {
            "Type": options.text("log-driver"),
            "Config": pairs(options.texts("log-opt"), "log-opt"),
        }
    return result


COMMAND = Command(
    "[OPTIONS] FILE|-",
    "Create pods, volumes and secrets from Kubernetes' YAML",
    run,
    flags=(
        *(flag for flag in container_flags.FLAGS if flag.name in _SHARED),
        Flag("configmap", "", "list", "Read ConfigMaps from another file", completes="file"),
        Flag("down", "", "bool", "Remove what the file describes"),
        Flag("force", "", "bool", "With --down, remove volumes of claims too"),
        Flag("publish-all", "", "bool", "Publish all ports of the containers"),
        Flag("replace", "", "bool", "Remove what an earlier play of the file has made first"),
        SDNOTIFY,
        Flag(
            "service-container",
            "",
            "bool",
            "Accepted for podman's units: --wait has its effect",
        ),
        Flag(
            "service-exit-code-propagation",
            "",
            "string",
            "With --wait, fail if containers failed (none, any, all)",
            default="none",
            completes=_PROPAGATION,
        ),
        Flag("start", "", "bool", "Start the pods", default="true"),
        Flag("wait", "w", "bool", "Stay until the pods have ended, and remove them"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Reads Pod, Deployment, DaemonSet, Job, StatefulSet, ReplicaSet, PersistentVolumeClaim, "
        "ConfigMap and Secret, and makes them on this host. A pod gets an infra container and the "
        "network jaula-kube, in which its name is known. A field without effect is named."
    ),
    examples=(
        ("Play a file", "jaula kube play web.yaml"),
        ("Play it again after a change", "jaula kube play --replace web.yaml"),
        ("Remove it", "jaula kube down web.yaml"),
    ),
    see_also=("kube down", "kube generate", "pod ls"),
    completes="file",
)
