"""Make what a plan of Kubernetes' objects asks for, and remove it again.

Objects carry the label :data:`LABEL` with the name of the object in the YAML that they come from.
If a step fails, the pods of this call are removed: a file is played as a whole.
"""

from __future__ import annotations

import os
import stat
import sys
from base64 import b64encode

from jaula.cli import site_packages
from jaula.cli.client.client import Client, filters, quote
from jaula.cli.errors import CliError, EngineError
from jaula.cli.images import pull
from jaula.cli.pods import pods
from jaula.kube import plan as kube_plan
from jaula.kube.documents import MAX_SIZE, InvalidDocument, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LABEL = "io.jaula.kube"
_NOT_FOUND, _CONFLICT = 404, 409


def read(path: str) -> list[dict[str, Any]]:
    """Return the objects of a file, ``-`` for standard input.

    :raises CliError: when it cannot be read, or is invalid.
    """
    if "://" in path:
        raise CliError(f"cannot play {path}: download it first, and read it", status=125)
    site_packages.enable()
    try:
        if path == "-":
            text = sys.stdin.buffer.read(MAX_SIZE + 1)
        else:
            with open(path, "rb") as file:
                text = file.read(MAX_SIZE + 1)
        return load(text)
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}", status=125) from None
    except InvalidDocument as error:
        raise CliError(f"{path}: {error}", status=125) from None


def plan_of(
    path: str,
    objects: list[dict[str, Any]],
    options: kube_plan.Options | None = None,
    config_maps: list[dict[str, Any]] | None = None,
) -> kube_plan.Plan:
    """Return the plan of objects.

    :raises CliError: when an object is invalid.
    """
    try:
        return kube_plan.plan(objects, options, config_maps)
    except InvalidDocument as error:
        raise CliError(f"{path}: {error}", status=125) from None


class Play:
    """One ``kube play``: the networks of the pods, and whether they are started."""

    def __init__(self, client: Client, networks: list[str], *, start: bool, quiet: bool) -> None:
        self._client = client
        self._networks = networks
        self._start = start
        self._quiet = quiet

    def run(self, plan: kube_plan.Plan) -> list[str]:
        """Make everything and print it as podman does; return the names of the pods.

        :raises CliError: when a step fails; no pod of the plan is left then.
        """
        for volume in plan.volumes:
            create_volume(self._client, volume, "")
            print(f"Volumes:\n{volume.name}\n")
        for file in plan.files:
            self._create_file(file)
        if plan.files:
            names = sorted({file.owner for file in plan.files})
            print("Secrets:\n" + "\n".join(names) + "\n")
        made: list[str] = []
        try:
            for pod in plan.pods:
                self._play(pod, made)
        except BaseException:
            for name in made:
                self._undo(name)
            raise
        return made

    def _undo(self, name: str) -> None:
        try:
            remove_pod(self._client, pods.find(self._client, name))
        except CliError as error:
            sys.stderr.write(f"the pod {name} is left: {error.message}\n")

    def _play(self, pod: kube_plan.Pod, made: list[str]) -> None:
        client = self._client
        check_host_paths(client, pod)
        for container in pod.containers:
            self._ensure_image(str(container.body["Image"]), container.pull)
        infra = dict(pod.infra)
        if not pod.host_network:
            networks = self._networks or [kube_plan.NETWORK]
            if not self._networks:
                ensure_network(client, kube_plan.NETWORK)
            infra["HostConfig"] = {
                "NetworkMode": networks[0].partition(":")[0],
                **infra["HostConfig"],
            }
            infra["NetworkingConfig"] = {"EndpointsConfig": {name: {} for name in networks}}
            if networks[0] in ("host", "none"):
                del infra["NetworkingConfig"]
        infra["Labels"] = {**infra["Labels"], LABEL: pod.name}
        # The containers decide about their restarts; the engine starts the infra container first.
        policies = {c.body["HostConfig"]["RestartPolicy"]["Name"] for c in pod.containers}
        if "always" in policies:
            infra["HostConfig"] = {**infra["HostConfig"], "RestartPolicy": {"Name": "always"}}
        identity = pods.create_infra(client, pod.name, infra, {pods.EXIT_POLICY_LABEL: "stop"})
        made.append(pod.name)
        for volume in pod.volumes:
            create_volume(client, volume, pod.name)
        for file in pod.files:
            self._create_file(file)
        created: list[tuple[kube_plan.Container, str]] = []
        for container in pod.containers:
            created.append((container, self._create(pod.name, container, identity)))
        if self._start:
            client.request("POST", f"/containers/{identity}/start")
            for container, container_id in created:
                client.request("POST", f"/containers/{container_id}/start")
                if container.init:
                    self._wait_init(container, container_id)
                    client.request("DELETE", f"/containers/{container_id}", (("v", True),))
        noun = "Container" if len(created) == 1 else "Containers"
        ids = "\n".join(container_id for container, container_id in created if not container.init)
        print(f"Pod:\n{identity}\n{noun}:\n{ids}\n", flush=True)

    def _create(self, pod: str, container: kube_plan.Container, infra: str) -> str:
        body = _replace(container.body, kube_plan.INFRA, infra)
        role = pods.INIT if container.init else pods.MEMBER
        body["Labels"] |= {pods.NAME_LABEL: pod, pods.ROLE_LABEL: role, LABEL: pod}
        query = (("name", f"{pod}-{container.name}"),)
        answer = self._client.document("POST", "/containers/create", query, body)
        for warning in answer.get("Warnings") or ():
            sys.stderr.write(f"WARNING: {warning}\n")
        return str(answer["Id"])

    def _wait_init(self, container: kube_plan.Container, identity: str) -> None:
        answer = self._client.document("POST", f"/containers/{identity}/wait")
        status = int(answer["StatusCode"])
        if status:
            raise CliError(
                f"init container {container.name} exited with status {status}; "
                f"its output: {last_line(self._client, identity)}",
                status=125,
            )

    def _ensure_image(self, image: str, policy: str) -> None:
        if policy != "always":
            try:
                self._client.get(f"/images/{quote(image, '/:@')}/json")
                return
            except EngineError as error:
                if error.code != _NOT_FOUND:
                    raise
                if policy == "never":
                    raise CliError(
                        f"image {image} is absent, and its policy is Never", status=125
                    ) from None
        pull.pull(self._client, image, "", quiet=self._quiet, output=2)

    def _create_file(self, file: kube_plan.File) -> None:
        """Create a secret or config; one that exists is replaced."""
        body = {
            "Name": file.name,
            "Labels": {LABEL: file.owner},
            "Data": b64encode(file.data).decode(),
        }
        try:
            self._client.document("POST", f"/{file.noun}/create", (), body)
        except EngineError as error:
            if error.code != _CONFLICT:
                raise
            self._client.request("DELETE", f"/{file.noun}/{quote(file.name)}")
            self._client.document("POST", f"/{file.noun}/create", (), body)


def check_host_paths(client: Client, pod: kube_plan.Pod) -> None:
    """Check that paths of the host are what the volumes say; make those that may be absent.

    :raises CliError: when one is absent or something else.
    """
    kinds = {"Directory": stat.S_ISDIR, "File": stat.S_ISREG, "Socket": stat.S_ISSOCK,
             "CharDevice": stat.S_ISCHR, "BlockDevice": stat.S_ISBLK}  # fmt: skip
    if not client.address.is_unix:
        return  # the host is another one
    for host_path in pod.host_paths:
        path, kind = host_path.path, host_path.kind
        if kind == "DirectoryOrCreate":
            os.makedirs(path, mode=0o755, exist_ok=True)
        elif kind == "FileOrCreate" and not os.path.exists(path):
            with open(path, "xb"):
                os.chmod(path, 0o644)
        elif kind in kinds and not (os.path.exists(path) and kinds[kind](os.stat(path).st_mode)):
            raise CliError(f"the path {path} of the host is not a {kind}", status=125)


def ensure_network(client: Client, name: str) -> None:
    """Create a network if it is absent."""
    try:
        client.document("POST", "/networks/create", (), {"Name": name, "CheckDuplicate": True})
    except EngineError as error:
        if error.code != _CONFLICT:
            raise


def create_volume(client: Client, volume: kube_plan.Volume, owner: str) -> None:
    """Create a volume; ``owner`` is the pod with which it is removed."""
    body: dict[str, Any] = {"Name": volume.name, "Labels": dict(volume.labels)}
    body["Labels"][LABEL] = owner or volume.name
    if volume.driver:
        body["Driver"] = volume.driver
    if volume.options:
        body["DriverOpts"] = volume.options
    client.document("POST", "/volumes/create", (), body)


def remove_pod(client: Client, pod: pods.Pod) -> None:
    """Stop and remove a pod with its own volumes and files."""
    pods.stop(client, pod)
    pods.remove(client, pod, force=True)
    _remove_owned(client, pod.name, ("configs",))
    for volume in _volumes(client, pod.name):
        client.request("DELETE", f"/volumes/{quote(volume)}")


def _volumes(client: Client, owner: str) -> list[str]:
    query = (("filters", filters([f"label={LABEL}={owner}"])),)
    return [str(v["Name"]) for v in client.get("/volumes", query)["Volumes"] or ()]


def _remove_owned(client: Client, owner: str, nouns: tuple[str, ...]) -> int:
    """Remove the secrets or configs of an object and return their number."""
    count = 0
    for noun in nouns:
        query = (("filters", filters([f"label={LABEL}={owner}"])),)
        for entry in client.get(f"/{noun}", query) or ():
            client.request("DELETE", f"/{noun}/{entry['ID']}")
            count += 1
    return count


def down(client: Client, plan: kube_plan.Plan, *, force: bool, quiet: bool = False) -> None:
    """Remove what a plan has made, and print it as podman does. What is absent is no error."""
    removed: list[str] = []
    known = {pod.name: pod for pod in pods.listed(client)}
    for pod in plan.pods:
        if pod.name in known:
            remove_pod(client, known[pod.name])
            removed.append(known[pod.name].id)
    secrets = [
        owner
        for owner in sorted({file.owner for file in plan.files})
        if _remove_owned(client, owner, ("secrets",))
    ]
    volumes = []
    if force:
        for volume in plan.volumes:
            try:
                client.request("DELETE", f"/volumes/{quote(volume.name)}")
                volumes.append(volume.name)
            except EngineError as error:
                if error.code != _NOT_FOUND:
                    raise
    if quiet:
        return
    for title, lines in (
        ("Pods stopped", removed),
        ("Pods removed", removed),
        ("Secrets removed", secrets),
        ("Volumes removed", volumes),
    ):
        print("\n".join([f"{title}:", *lines]))


def last_line(client: Client, container: str) -> str:
    """Return the end of the output of a container."""
    from jaula.spec.stdcopy import StdcopyReader

    query = (("stdout", True), ("stderr", True), ("tail", 1))
    data = client.request("GET", f"/containers/{container}/logs", query)
    text = b"".join(payload for _, payload in StdcopyReader().feed(data))
    return text.decode("utf-8", "replace").strip()[:200] or "none"


def _replace(value: Any, old: str, new: str) -> Any:
    """Return a copy of ``value`` with ``old`` replaced in its texts."""
    if isinstance(value, dict):
        return {key: _replace(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, old, new) for item in value]
    return value.replace(old, new) if isinstance(value, str) else value
