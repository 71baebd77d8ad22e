"""``jaula kube play``."""

from __future__ import annotations

import os
import sys
from itertools import zip_longest

from jaula import feature
from jaula.cli.cli_errors import UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options, parse
from jaula.cli.containers import flags
from jaula.cli.containers.attach_loop import SDNOTIFY
from jaula.cli.containers.create_body import pairs
from jaula.cli.images import pull_progress
from jaula.cli.main import Settings
from jaula.features.kubernetes.cli.kube import play, yaml_source
from jaula.features.kubernetes.cli.pods import api_pods
from jaula.features.kubernetes.cli.pods.supervise import supervise
from jaula.features.kubernetes.kube import kube_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROPAGATION = ("none", "any", "all")
_SHARED = ("log-driver", "log-opt", "network", "publish", "userns", "annotation", "label", "quiet")


def run(options: Options) -> int:
    """Make the objects of the file; with ``--wait`` stay until the pods have ended."""
    path = options.arguments[0]
    propagation = options.text("service-exit-code-propagation", "none")
    if propagation not in _PROPAGATION:
        raise UsageError(f"--service-exit-code-propagation must be {', '.join(_PROPAGATION)}")
    if authfile := options.text("authfile"):
        os.environ["REGISTRY_AUTH_FILE"] = authfile
    client = Client(Settings.host)
    objects = yaml_source.read(path)
    names = play.names_of(path, objects)
    if options.on("down"):
        play.down(client, names, force=options.on("force"))
        return 0
    settings = _settings(options)
    plan = play.plan_of(path, objects, _plan_options(client, options), _config_maps(options))
    for warning in plan.warnings:
        sys.stderr.write(f"WARNING: {warning}\n")
    if options.on("replace"):
        play.down(client, names, force=False, quiet=True)
    action = play.Play(client, settings)
    if not options.on("wait"):
        action.run(plan)
        return 0
    with supervise(options.text("sdnotify", "ignore")) as service:
        pod_names = action.run(plan)
        service.ready()
        api_pods.wait(client, pod_names, service.ended)
        client = Client(Settings.host)
        codes = [
            code
            for pod in api_pods.listed(client)
            if pod.name in pod_names
            for code in api_pods.exit_codes(client, pod)
        ]
        if not options.is_set("sdnotify") or service.signalled:
            play.down(client, names, force=False, quiet=service.signalled)
    return _status(codes, "none" if service.signalled else propagation)


def _config_maps(options: Options) -> list[dict[str, Any]]:
    """Return the ConfigMaps of other files.

    :raises UsageError: when such a file has another object.
    """
    paths = [path for word in options.texts("configmap") for path in word.split(",")]
    maps = [entry for path in paths for entry in yaml_source.read(path)]
    for entry in maps:
        if entry["kind"] != "ConfigMap":
            raise UsageError(f"--configmap: {entry['kind']} is not a ConfigMap")
    return maps


def _settings(options: Options) -> play.PodSettings:
    result = play.PodSettings()
    result.networks = options.texts("network")
    addresses, macs = options.texts("ip"), options.texts("mac-address")
    result.addresses = list(zip_longest(addresses, macs, fillvalue=""))
    result.start = options.on("start", True)
    result.quiet = options.on("quiet")
    directory = options.text("context-dir")
    if directory and not options.on("build"):
        raise UsageError("--context-dir requires --build")
    if options.on("build", True):
        result.build = lambda image, present: _build(
            image, directory or ".", present and not options.on("build"), quiet=result.quiet
        )
    return result


def _build(image: str, directory: str, present: bool, *, quiet: bool) -> bool:
    """Build an image from the context of its name below ``directory``, if there is one.

    Return whether it was built: an image that is ``present`` is not.
    """
    feature.require("build", "--build")
    from jaula.features.build.cli import build_command

    file = None if present else image_context(image, directory)
    if file is None:
        return False
    progress = "quiet" if quiet else "auto"
    context = os.path.dirname(file)
    build_command.run(
        parse(
            build_command.COMMAND, [f"--progress={progress}", f"-t={image}", f"-f={file}", context]
        )
    )
    return True


def image_context(image: str, directory: str) -> str | None:
    """Return the path of the Containerfile in the directory with the name of an image.

    The name is that of the repository, without ``localhost/``, tag and digest.
    """
    name = pull_progress.split_reference(image)[0].removeprefix("localhost/")
    if not name or any(part in ("", ".", "..") for part in name.split("/")):
        return None
    for file in ("Containerfile", "Dockerfile"):
        path = os.path.join(directory, name, file)
        if os.path.isfile(path):
            return path
    return None


def _status(codes: list[int], propagation: str) -> int:
    """Return the exit status from those of the containers, as podman's service container."""
    failed = [code for code in codes if code]
    if propagation == "any":
        return failed[0] if failed else 0
    if propagation == "all":
        return failed[0] if codes and len(failed) == len(codes) else 0
    return 0


def _plan_options(client: Client, options: Options) -> kube_plan.Options:
    result = kube_plan.Options(
        publish_all=options.on("publish-all"),
        host_network=options.texts("network") == ["host"],
        seccomp_root=options.text("seccomp-profile-root", kube_plan.SECCOMP_ROOT),
        secrets=play.stored_secrets(client),
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
    "[OPTIONS] FILE|URL|-",
    "Create pods, volumes and secrets from Kubernetes' YAML",
    run,
    flags=(
        *(flag for flag in flags.FLAGS if flag.name in _SHARED),
        Flag(
            "authfile",
            "",
            "string",
            "Read the credentials of registries from a file",
            completes="file",
        ),
        Flag(
            "build",
            "",
            "bool",
            "Build images that have a directory of their name, also those that exist",
        ),
        Flag("context-dir", "", "string", "Directory that has the directories of --build"),
        Flag("configmap", "", "list", "Read ConfigMaps from another file", completes="file"),
        Flag("down", "", "bool", "Remove what the file describes"),
        Flag("force", "", "bool", "With --down, remove volumes of claims too"),
        Flag("ip", "", "list", "Static IPv4 address of a pod, once for each pod"),
        Flag("mac-address", "", "list", "MAC address of a pod, once for each pod"),
        Flag("publish-all", "", "bool", "Publish all ports of the containers"),
        Flag("replace", "", "bool", "Remove what an earlier play of the file has made first"),
        SDNOTIFY,
        Flag(
            "seccomp-profile-root",
            "",
            "string",
            "Directory of profiles of the type Localhost",
            default=kube_plan.SECCOMP_ROOT,
        ),
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
        "network jaula-kube, in which its name is known. A field without effect is named. An image "
        "that is absent is built, if the working directory has a directory of its name with a "
        "Containerfile or Dockerfile. Of a URL the YAML is downloaded."
    ),
    examples=(
        ("Play a file", "jaula kube play web.yaml"),
        ("Play it again after a change", "jaula kube play --replace web.yaml"),
        ("Remove it", "jaula kube down web.yaml"),
    ),
    see_also=("kube down", "kube generate", "pod ls"),
    completes="file",
)
