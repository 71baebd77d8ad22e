"""Make what a plan of Kubernetes' objects asks for, and remove it again.

Objects carry the label :data:`LABEL` with the name of the object in the YAML that they come from.
If a step fails, the pods, volumes and secrets that this call has created are removed: a file is
played as a whole.
"""

from __future__ import annotations

import os
import stat
import sys
from base64 import b64decode, b64encode

from jaula.cli.cli_errors import CliError, EngineError, Unreachable, UsageError
from jaula.cli.client.api_client import Client, filters, quote
from jaula.cli.containers import network_option
from jaula.cli.containers.columns import NAME_LABEL
from jaula.cli.containers.create_body import set_security_options
from jaula.cli.images import pull_progress
from jaula.features.kubernetes.cli.pods import api_pods
from jaula.features.kubernetes.kube import generate, kube_plan
from jaula.features.kubernetes.kube.kube_documents import InvalidDocument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LABEL = "io.jaula.features.kubernetes.kube"
_PLAY_LABEL = (
    "io.jaula.features.kubernetes.kube-play"  # of the infra container, with the word of its play
)
_NOT_FOUND, _CONFLICT = 404, 409
_PRIVATE = ("private", "pasta", "slirp4netns")  # podman's networks without a name


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


def names_of(path: str, objects: list[dict[str, Any]]) -> kube_plan.Names:
    """Return the names of what objects make.

    :raises CliError: when an object is invalid.
    """
    try:
        return kube_plan.names(objects)
    except InvalidDocument as error:
        raise CliError(f"{path}: {error}", status=125) from None


class PodSettings:
    """How the pods are made: networks and addresses, start, builds, and messages of a pull.

    ``addresses`` are pairs of IP and MAC address, for the first pods in their order. ``build``
    makes an image if there is a context for it, and returns whether it has; its second argument is
    whether the engine has the image.
    """

    def __init__(self) -> None:
        self.networks: list[str] = []
        self.addresses: list[tuple[str, str]] = []
        self.start = True
        self.quiet = False
        self.build: Callable[[str, bool], bool] = lambda image, present: False


class Play:
    """One ``kube play``."""

    def __init__(self, client: Client, settings: PodSettings) -> None:
        self._client = client
        self._settings = settings
        self._undo: list[Callable[[], object]] = []
        self._word = os.urandom(16).hex()  # of what this play creates
        self._transaction = (("transaction", self._word),)  # of the volumes

    def run(self, plan: kube_plan.Plan) -> list[str]:
        """Make everything and print it as podman does; return the names of the pods.

        :raises CliError: when a step fails; nothing that this call has created is left then.
        """
        existing = {pod.name for pod in api_pods.listed(self._client)}
        for pod in plan.pods:
            if pod.name in existing:
                raise CliError(f"the pod {pod.name} exists: --replace removes it first", status=125)
        try:
            self._create_objects(plan)
            for number, pod in enumerate(plan.pods):
                self._play(pod, number)
        except BaseException:
            self._remove_created()
            raise
        return [pod.name for pod in plan.pods]

    def _remove_created(self) -> None:
        for undo in reversed(self._undo):
            try:
                undo()
            except CliError as error:
                sys.stderr.write(f"not everything is removed: {error.message}\n")
                if isinstance(error, Unreachable):
                    break  # kube down removes it when the engine runs again

    def _create_objects(self, plan: kube_plan.Plan) -> None:
        """Create the volumes of claims and the secrets, and print their names."""
        for volume in plan.volumes:
            self._create_volume(volume, "")
            print(f"Volumes:\n{volume.name}\n")
        for file in plan.files:
            self._create_file(file)
        if plan.files:
            owners = sorted({file.owner for file in plan.files})
            print("Secrets:\n" + "\n".join(owners) + "\n")

    def _remove_pod(self, name: str) -> None:
        """Remove a pod if this play has created it."""
        for pod in api_pods.listed(self._client):
            if pod.name == name and pod.infra["Labels"].get(_PLAY_LABEL) == self._word:
                remove_pod(self._client, pod)

    def _play(self, pod: kube_plan.Pod, number: int) -> None:
        client = self._client
        check_host_paths(client, pod)
        for container in pod.containers:
            self._ensure_image(str(container.body["Image"]), container.pull)
        infra = {**pod.infra, "HostConfig": dict(pod.infra["HostConfig"])}
        if not pod.host_network:
            self._set_network(infra, number)
        infra["Labels"] = {**infra["Labels"], LABEL: pod.name, _PLAY_LABEL: self._word}
        # The containers decide about their restarts; the engine starts the infra container first.
        policies = {c.body["HostConfig"]["RestartPolicy"]["Name"] for c in pod.containers}
        if "always" in policies:
            infra["HostConfig"]["RestartPolicy"] = {"Name": "always"}
        settings = {api_pods.EXIT_POLICY_LABEL: "stop"}
        self._undo.append(lambda: self._remove_pod(pod.name))  # also if there is no answer
        identity = api_pods.create_infra(client, pod.name, infra, settings, pod.infra_name)
        for volume in pod.volumes:
            self._create_volume(volume, pod.name)
        for file in pod.files:
            self._create_file(file)
        created: list[tuple[kube_plan.Container, str]] = []
        for container in pod.containers:
            created.append((container, self._create(pod.name, container, identity)))
        if self._settings.start:
            client.request("POST", f"/containers/{identity}/start")
            for container, container_id in created:
                client.request("POST", f"/containers/{container_id}/start")
                if container.init:
                    self._wait_init(container, container_id)
                    client.request("DELETE", f"/containers/{container_id}", (("v", True),))
        noun = "Container" if len(created) == 1 else "Containers"
        ids = "\n".join(container_id for container, container_id in created if not container.init)
        print(f"Pod:\n{identity}\n{noun}:\n{ids}\n", flush=True)

    def _set_network(self, infra: dict[str, Any], number: int) -> None:
        """Set the networks and addresses of the infra container of the pod ``number``."""
        endpoints = dict(map(parse_network, self._settings.networks))
        endpoints = endpoints or {kube_plan.NETWORK: {}}
        if kube_plan.NETWORK in endpoints:
            ensure_network(self._client, kube_plan.NETWORK)
        mode = next(iter(endpoints))
        if number < len(self._settings.addresses):
            address, mac = self._settings.addresses[number]
            endpoints[mode] |= {"ip": address} if address else {}
            endpoints[mode] |= {"mac-address": mac} if mac else {}
        infra["HostConfig"]["NetworkMode"] = mode
        if mode != "none" and not mode.startswith("container:"):
            infra["NetworkingConfig"] = {
                "EndpointsConfig": {
                    name: network_option.endpoint(settings) for name, settings in endpoints.items()
                }
            }

    def _create(self, pod: str, container: kube_plan.Container, infra: str) -> str:
        body = _replace(container.body, kube_plan.INFRA, infra)
        if words := body["HostConfig"].get("SecurityOpt"):  # with the path of a seccomp profile
            set_security_options(words, body["HostConfig"])
        role = api_pods.INIT if container.init else api_pods.MEMBER
        body["Labels"] |= {NAME_LABEL: pod, api_pods.ROLE_LABEL: role, LABEL: pod}
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
        present = self._has_image(image)
        if self._settings.build(image, present):
            return
        if policy == "never" and not present:
            raise CliError(f"image {image} is absent, and its policy is Never", status=125)
        if policy == "always" or not present:
            pull_progress.pull(self._client, image, "", quiet=self._settings.quiet, output=2)

    def _has_image(self, image: str) -> bool:
        try:
            self._client.get(f"/images/{quote(image, '/:@')}/json")
        except EngineError as error:
            if error.code != _NOT_FOUND:
                raise
            return False
        return True

    def _create_volume(self, volume: kube_plan.Volume, owner: str) -> None:
        """Create a volume unless it exists; ``owner`` is the pod with which it is removed."""
        body: dict[str, Any] = {"Name": volume.name, "Labels": dict(volume.labels)}
        body["Labels"][LABEL] = owner or volume.name
        if volume.driver:
            body["Driver"] = volume.driver
        if volume.options:
            body["DriverOpts"] = volume.options
        path = f"/volumes/{quote(volume.name)}"
        # After its pod; also if there is no answer. The engine knows whether this call created it.
        self._undo.insert(0, lambda: remove(self._client, path, self._transaction))
        try:
            self._client.document("POST", "/volumes/create", self._transaction, body)
        except EngineError:
            del self._undo[0]
            raise

    def _create_file(self, file: kube_plan.File) -> None:
        """Create a secret or config; one that exists is replaced when the new one is stored."""
        path = f"/{file.noun}/create"
        body = {
            "Name": file.name,
            "Labels": {LABEL: file.owner},
            "Data": b64encode(file.data).decode(),
        }
        try:
            made = self._client.document("POST", path, (), body)
        except EngineError as error:
            if error.code != _CONFLICT:
                raise
            former = self._client.get(f"/{file.noun}/{quote(file.name)}")
            self._client.document("POST", path, (("replace", str(former["ID"])),), body)
        else:
            self._undo.insert(0, lambda: remove(self._client, f"/{file.noun}/{made['ID']}"))


def parse_network(word: str) -> tuple[str, dict[str, Any]]:
    """Return the name and settings of a ``--network``, in Docker's form or podman's.

    Podman's is ``NAME:ip=A,mac=B``. Networks of podman without a name are the one of all pods.

    :raises UsageError: when an option is unknown.
    """
    name, colon, options = word.partition(":")
    if colon and "=" not in name and name not in ("container", "ns"):
        fields = options.replace("mac=", "mac-address=") if options else ""
        name, settings = network_option.parse(f"name={name},{fields}")
    else:
        name, settings = network_option.parse(word)
    if name.startswith("ns:"):
        raise UsageError(f"--network={word}: a pod cannot join a network namespace by its path")
    if name in _PRIVATE:
        name = kube_plan.NETWORK
    return name, settings


def stored_secrets(client: Client) -> dict[str, list[str]]:
    """Return the keys of the Secrets that earlier plays have stored in the engine."""
    result: dict[str, list[str]] = {}
    for entry in client.get("/secrets", (("filters", filters([f"label={LABEL}"])),)) or ():
        owner = str(entry["Spec"]["Labels"][LABEL])
        name = str(entry["Spec"]["Name"])
        result.setdefault(owner, []).append(name.removeprefix(f"{owner}."))
    return result


def check_host_paths(client: Client, pod: kube_plan.Pod) -> None:
    """Check that paths of the host are what the volumes say; make those that may be absent.

    :raises CliError: when one is absent or something else, or a part of it is elsewhere.
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
        part = os.path.realpath(f"{path}/{host_path.part}")
        if not f"{part}/".startswith(os.path.realpath(path).rstrip("/") + "/"):
            raise CliError(
                f"the subPath {host_path.part} of {path} leads out of it, to {part}", status=125
            )


def ensure_network(client: Client, name: str) -> None:
    """Create a network if it is absent."""
    try:
        client.document("POST", "/networks/create", (), {"Name": name, "CheckDuplicate": True})
    except EngineError as error:
        if error.code != _CONFLICT:
            raise


def stored(client: Client) -> generate.Stored:
    """Return the volumes, secrets and configs of the engine that plays have made."""
    labelled = (("filters", filters([f"label={LABEL}"])),)
    result = generate.Stored()
    for volume in client.get("/volumes", labelled)["Volumes"] or ():
        if volume["Labels"][LABEL] != volume["Name"]:  # else it is the volume of a claim
            result.empty_dirs[volume["Name"]] = volume.get("Options") or {}
    for owner, keys in stored_secrets(client).items():
        result.secrets |= {f"{owner}.{key}": (owner, key) for key in keys}
    for entry in client.get("/configs", labelled) or ():
        spec = client.get(f"/configs/{entry['ID']}")["Spec"]
        name = str(spec["Name"]).removeprefix(f"{spec['Labels'][LABEL]}.")
        config_map, _, key = name.partition(".")
        result.configs[spec["Name"]] = (config_map, key, b64decode(spec.get("Data") or ""))
    return result


def remove(client: Client, path: str, query: tuple[tuple[str, str], ...] = ()) -> None:
    """Remove an object of the engine, with ``query`` under a condition; it may be absent."""
    try:
        client.request("DELETE", path, query)
    except EngineError as error:
        if error.code != _NOT_FOUND:
            raise


def remove_pod(client: Client, pod: api_pods.Pod) -> None:
    """Stop and remove a pod with its own volumes and files.

    They are listed while it has its name: those of the next pod of that name stay.
    """
    query = (("filters", filters([f"label={LABEL}={pod.name}"])),)
    configs = client.get("/configs", query) or ()
    volumes = client.get("/volumes", query)["Volumes"] or ()
    api_pods.stop(client, pod)
    api_pods.remove(client, pod, force=True)
    for config in configs:
        remove(client, f"/configs/{config['ID']}")
    for volume in volumes:
        if volume["Name"] != pod.name:  # else it is that of a claim, which stays
            _remove_volume(client, volume)


def _remove_volume(client: Client, volume: dict[str, Any]) -> None:
    """Remove a volume, and none that has got its name."""
    remove(client, f"/volumes/{quote(str(volume['Name']))}", (("id", str(volume["Id"])),))


def _remove_secrets(client: Client, owner: str) -> int:
    """Remove the secrets of a Secret and return their number."""
    found = client.get("/secrets", (("filters", filters([f"label={LABEL}={owner}"])),)) or ()
    for entry in found:
        client.request("DELETE", f"/secrets/{entry['ID']}")
    return len(found)


def down(client: Client, names: kube_plan.Names, *, force: bool, quiet: bool = False) -> None:
    """Remove what objects have made, and print it as podman does. What is absent is no error."""
    removed: list[str] = []
    known = {pod.name: pod for pod in api_pods.listed(client)}
    for name in names.pods:
        if name in known:
            remove_pod(client, known[name])
            removed.append(known[name].id)
    secrets = [owner for owner in sorted(names.secrets) if _remove_secrets(client, owner)]
    volumes = []
    for name in names.volumes if force else ():
        # A volume that was there before the play is not in the list, and stays.
        query = (("filters", filters([f"label={LABEL}={name}"])),)
        for volume in client.get("/volumes", query)["Volumes"] or ():
            if volume["Name"] == name:
                _remove_volume(client, volume)
                volumes.append(name)
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
