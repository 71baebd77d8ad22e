"""Pods through the Docker API: create, find, start, stop, signal, pause and remove them.

A pod is an infra container, whose program waits for a signal, and containers that join its
namespaces. Labels say which containers belong to a pod. So the engine, ``jaula ps`` and other
clients need to know nothing of pods. The pod's id is that of its infra container.

Pods of Kubernetes, which the engine serves by CRI, are listed with these but belong to the kubelet.
"""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, engine_error, filters, quote, target
from jaula.cli.containers.columns import NAME_LABEL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from jaula.cli.client.api_client import Query

ROLE_LABEL = "io.jaula.pod-role"
EXIT_POLICY_LABEL = "io.jaula.pod-exit-policy"
SHARE_LABEL = "io.jaula.pod-share"
RESTART_LABEL = "io.jaula.pod-restart"
INFRA, MEMBER, INIT = "infra", "member", "init"
IMAGE = "localhost/jaula-pause"
_NOT_FOUND, _NOT_MODIFIED, _CONFLICT, _ERROR = 404, 304, 409, 400
_WITHOUT_ALIASES = ("default", "bridge", "host", "none")
_POLL_SECONDS = 0.5
_STARTED = frozenset(("running", "restarting", "paused"))
_ALIVE = _STARTED | {"created"}
NO_POD = 125  # the exit status of a command about a pod that does not exist
SHARED = ("ipc", "net", "uts")
"""The namespaces that containers share unless ``--share`` names others. The user namespace is
shared always: it owns the others."""
SHAREABLE = (*SHARED, "pid")


class Pod:
    """A pod: its name, its infra container and its other containers, as the list has them."""

    def __init__(self, name: str, infra: dict[str, Any], members: list[dict[str, Any]]) -> None:
        self.name = name
        self.infra = infra
        self.members = members

    @property
    def id(self) -> str:
        """Return the id of the infra container."""
        return str(self.infra["Id"])

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Return all containers, the infra container first."""
        return [self.infra, *self.members]

    def containers_in(self, state: str) -> list[dict[str, Any]]:
        """Return the containers in a state, the infra container first."""
        return [entry for entry in self.containers if entry["State"] == state]

    @property
    def shared(self) -> tuple[str, ...]:
        """Return the names of the namespaces that the containers share."""
        text = self.infra["Labels"].get(SHARE_LABEL)
        return SHARED if text is None else tuple(name for name in text.split(",") if name)

    @property
    def status(self) -> str:
        """Return the state as podman names it."""
        return status([str(entry["State"]) for entry in self.containers])


def status(states: list[str]) -> str:
    """Return podman's name of the state of a pod, from those of its containers. Pure.

    The first one is the state of the infra container.
    """
    infra = states[0]
    if infra == "created":
        return "Created"
    if set(states) == {"paused"}:
        return "Paused"
    if infra not in ("running", "paused"):
        return "Exited"
    return "Running" if all(state == "running" for state in states) else "Degraded"


def listed(client: Client) -> list[Pod]:
    """Return all pods that were made by this client, the newest first."""
    query = (("all", True), ("filters", filters([f"label={NAME_LABEL}"])))
    infra: dict[str, dict[str, Any]] = {}
    members: dict[str, list[dict[str, Any]]] = {}
    for entry in client.get("/containers/json", query):
        name, role = entry["Labels"][NAME_LABEL], entry["Labels"].get(ROLE_LABEL)
        if role == INFRA:
            infra[name] = entry
        else:
            members.setdefault(name, []).append(entry)
    return [Pod(name, entry, members.get(name, [])[::-1]) for name, entry in infra.items()]


def find(client: Client, ref: str) -> Pod:
    """Return a pod by its name, or its id or the beginning of it.

    :raises CliError: when there is none, or several begin so.
    """
    pods = listed(client)
    found = [pod for pod in pods if ref in (pod.name, pod.id)]
    found = found or [pod for pod in pods if ref and pod.id.startswith(ref)]
    if not found:
        raise CliError(f"no pod with name or ID {ref} found: no such pod", status=NO_POD)
    if len(found) > 1:
        raise CliError(f"several pods have an ID that begins with {ref}")
    return found[0]


def ensure_image(client: Client) -> str:
    """Return the image of infra containers; make it if it is absent."""
    from jaula import __version__

    image = f"{IMAGE}:{__version__}"
    try:
        client.get(f"/images/{quote(image, '/:')}/json")
        return image
    except EngineError as error:
        if error.code != _NOT_FOUND:
            raise
    from jaula.features.kubernetes.pods import pause_rootfs

    query = [("fromSrc", "-"), ("repo", IMAGE), ("tag", __version__),
             ("changes", f'ENTRYPOINT ["{pause_rootfs.PROGRAM}"]')]  # fmt: skip
    for _ in client.upload("/images/create", query, [pause_rootfs.layer()[1]]).chunks():
        continue
    return image


def create_infra(
    client: Client,
    name: str,
    body: dict[str, Any],
    settings: Mapping[str, str] | None = None,
    container: str = "",
) -> str:
    """Create the infra container of a pod and return its id.

    ``settings`` are values of the pod by their labels. ``container`` is the name of the container,
    by default ``NAME-infra``.

    :raises EngineError: when a pod or container has the name, or the engine refuses.
    """
    labels = {NAME_LABEL: name, ROLE_LABEL: INFRA, **(settings or {})}
    body = {
        "StopTimeout": 0,
        **body,
        "Image": ensure_image(client),
        "Labels": {**body.get("Labels", {}), **labels},
        "HostConfig": {"IpcMode": "shareable", **body.get("HostConfig", {})},
    }
    networks = body.get("NetworkingConfig", {}).get("EndpointsConfig", {})
    for network, endpoint in networks.items():
        if network not in _WITHOUT_ALIASES:
            endpoint["Aliases"] = [*endpoint.get("Aliases", ()), name]
    query = (("name", container or f"{name}-infra"),)
    return str(client.document("POST", "/containers/create", query, body)["Id"])


def join(body: dict[str, Any], pod: Pod) -> None:
    """Change the body of a container so that it is one of ``pod``.

    :raises CliError: when it asks for namespaces or ports of its own.
    """
    host = body.setdefault("HostConfig", {})
    for member, flag in (
        ("PortBindings", "--publish"),
        ("ExtraHosts", "--add-host"),
        ("UsernsMode", "--userns"),
    ):
        if host.get(member):
            raise CliError(
                f"{flag} belongs to the pod {pod.name}, not to its container", status=125
            )
    if host.get("NetworkMode") not in (None, "", "default"):
        raise CliError(f"--network belongs to the pod {pod.name}", status=125)
    body.pop("NetworkingConfig", None)
    body.pop("Hostname", None)
    body.pop("ExposedPorts", None)
    body.setdefault("Labels", {}).update({NAME_LABEL: pod.name, ROLE_LABEL: MEMBER})
    infra = f"container:{pod.id}"
    host["UsernsMode"] = infra
    modes = {"ipc": "IpcMode", "net": "NetworkMode", "uts": "UTSMode", "pid": "PidMode"}
    for namespace in pod.shared:
        if not host.get(modes[namespace]) or namespace == "net":
            host[modes[namespace]] = infra
    if "net" in pod.shared and pod.infra["HostConfig"].get("NetworkMode") == "host":
        host["NetworkMode"] = "host"
        host.pop("UTSMode", None)
    policy = host.get("RestartPolicy", {}).get("Name", "")
    text = pod.infra["Labels"].get(RESTART_LABEL)
    if text and policy in ("", "no") and not host.get("AutoRemove"):
        from jaula.cli.containers.create_body import restart_policy

        host["RestartPolicy"] = restart_policy(text)
    if pod.infra.get("Mounts"):
        host.setdefault("VolumesFrom", []).append(pod.id)


def split_infra(body: dict[str, Any]) -> dict[str, Any]:
    """Move what belongs to a pod out of the body of a container; return it as that of its infra.

    It is for ``run --pod new:NAME``, whose flags are those of the pod and of the container. Pure.
    """
    host = body.setdefault("HostConfig", {})
    infra = {key: body.pop(key) for key in _INFRA_MEMBERS if key in body}
    infra["HostConfig"] = {key: host.pop(key) for key in _INFRA_HOST_MEMBERS if key in host}
    return infra


_INFRA_MEMBERS = ("Hostname", "Domainname", "ExposedPorts", "NetworkingConfig")
_INFRA_HOST_MEMBERS = (
    "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "NetworkMode", "PortBindings",
    "PublishAllPorts", "UsernsMode",
)  # fmt: skip


def start(client: Client, pod: Pod, *, infra_only: bool = False) -> None:
    """Start the infra container, then the others unless ``infra_only``; what runs stays.

    :raises EngineError: when one does not start.
    """
    for entry in (pod.infra, *(() if infra_only else pod.members)):
        if entry["Labels"].get(ROLE_LABEL) != INIT and entry["State"] != "running":
            _request(client, "POST", f"/containers/{entry['Id']}/start")


def stop(client: Client, pod: Pod, seconds: int | None = None) -> None:
    """Stop the containers, the infra container last."""
    limit: object = "" if seconds is None else seconds
    connections = []
    for entry in pod.members:  # all at once: one that ignores the signal takes its whole timeout
        if entry["State"] in _STARTED:
            connection = client.connection()
            path = f"/containers/{entry['Id']}/stop"
            connection.send("POST", target(path, (("t", limit),)))
            connections.append(connection)
    for connection in connections:
        response = connection.response()
        content = response.read()
        client.release(connection)
        if response.status >= _ERROR and response.status != _NOT_FOUND:
            raise engine_error(response.status, content)
    if pod.infra["State"] in _STARTED:
        _request(client, "POST", f"/containers/{pod.id}/stop", (("t", 0),), _NOT_FOUND)


def restart(client: Client, pod: Pod, seconds: int | None = None) -> None:
    """Stop the pod and start it with all its containers.

    :raises EngineError: when a container does not start.
    """
    stop(client, pod, seconds)
    start(client, find(client, pod.id))


def kill(client: Client, pod: Pod, signal: str) -> None:
    """Send a signal to the running containers, to the infra container last.

    :raises CliError: when none runs.
    """
    entries = _containers_in(pod, "running")[::-1]
    _each(client, entries, "kill", (("signal", signal),))


def pause(client: Client, pod: Pod) -> None:
    """Pause the running containers, the infra container last.

    :raises CliError: when none runs.
    """
    _each(client, _containers_in(pod, "running")[::-1], "pause")


def unpause(client: Client, pod: Pod) -> None:
    """Let the paused containers continue.

    :raises CliError: when none is paused.
    """
    _each(client, _containers_in(pod, "paused"), "unpause")


def _containers_in(pod: Pod, state: str) -> list[dict[str, Any]]:
    if not (entries := pod.containers_in(state)):
        raise CliError(f"no container of the pod {pod.name} is {state}", status=125)
    return entries


def _each(client: Client, entries: list[dict[str, Any]], action: str, query: Query = ()) -> None:
    """POST ``action`` for containers; one that has left its state meanwhile is skipped."""
    for entry in entries:
        _request(client, "POST", f"/containers/{entry['Id']}/{action}", query, _CONFLICT)


def remove(client: Client, pod: Pod, *, force: bool = False) -> None:
    """Remove the containers of a pod with their anonymous volumes.

    :raises EngineError: when one runs and ``force`` is not set.
    """
    query = (("force", force), ("v", True))
    for entry in (*pod.members[::-1], pod.infra):
        _request(client, "DELETE", f"/containers/{entry['Id']}", query, _NOT_FOUND)


def _request(
    client: Client, method: str, path: str, query: Query = (), ignored: int = _NOT_MODIFIED
) -> None:
    """Send a request; an answer with the code ``ignored`` says that there is nothing to do."""
    try:
        client.request(method, path, query)
    except EngineError as error:
        if error.code not in (ignored, _NOT_MODIFIED):
            raise


def exit_codes(client: Client, pod: Pod) -> list[int]:
    """Return the exit statuses of the containers of a pod; 0 of one that runs or is gone."""
    result = []
    for entry in pod.members:
        try:
            state = client.get(f"/containers/{entry['Id']}/json")["State"]
        except EngineError as error:
            if error.code != _NOT_FOUND:
                raise
            continue
        result.append(int(state["ExitCode"]) if state["Status"] == "exited" else 0)
    return result


def new_name() -> str:
    """Return a name for a pod that was given none."""
    from posix import urandom

    return f"pod-{urandom(4).hex()}"


def has_ended(pod: Pod) -> bool:
    """Return whether no container of a pod runs or will be started again by its policy."""
    states = [entry["State"] for entry in pod.members if entry["Labels"].get(ROLE_LABEL) != INIT]
    if pod.infra["State"] != "running":
        return True
    policy = pod.infra["Labels"].get(EXIT_POLICY_LABEL, "continue")
    return policy == "stop" and bool(states) and not set(states) & _ALIVE


def wait(client: Client, names: list[str], ended: Callable[[], bool]) -> None:
    """Wait until every pod of ``names`` has ended, or ``ended`` returns true.

    The engine may start again meanwhile.
    """
    from time import sleep

    from jaula.cli.cli_errors import Unreachable

    while not ended():
        try:
            pods = {pod.name: pod for pod in listed(client)}
        except (Unreachable, OSError):
            client = Client(client.explicit_host)
        else:
            if all(name not in pods or has_ended(pods[name]) for name in names):
                return
        sleep(_POLL_SECONDS)
