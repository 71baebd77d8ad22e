"""Pods of Kubernetes: requests for a sandbox and for a container in it, as frozen documents.

Source: ``k8s.io/cri-api`` runtime.v1, messages PodSandboxConfig and ContainerConfig.
"""

from __future__ import annotations

import msgspec

from jaula.spec.api import ContainerCreate

USERNS_HANDLER = "jaula-userns"
"""The runtime handler that gives a pod a user namespace of its own."""


class PodMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """The identity of a sandbox, which is unique among the sandboxes of an engine."""

    name: str
    uid: str
    namespace: str
    attempt: int = 0


class PodPort(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port of the host that leads to a port of the pod. ``protocol`` is tcp, udp or sctp."""

    host_port: int
    container_port: int
    protocol: str
    host_ip: str = ""


class PodIds(msgspec.Struct, frozen=True):
    """The ids of the host that are 0 to ``count`` - 1 in a pod's user namespace."""

    start: int
    count: int


class PodSandboxRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A sandbox: the namespaces and limits that the containers of a pod have in common.

    ``body`` is the sandbox as a container: its namespaces, sysctls, resolver and cgroup parent.
    ``shared_pid`` gives the pod one process namespace, whose first process is the sandbox's.
    ``log_directory`` is the host's directory of the pod's logs, '' if there is none. ``ids`` are
    those that the client has chosen for its user namespace; None for a range of the engine's.
    """

    metadata: PodMetadata
    body: ContainerCreate
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    log_directory: str = ""
    runtime_handler: str = ""
    shared_pid: bool = False
    ports: tuple[PodPort, ...] = ()
    ids: PodIds | None = None


class PodContainerRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A container of a pod. ``body`` has no namespace modes: the sandbox and ``pid`` decide them.

    ``pid`` is POD, CONTAINER, NODE or TARGET, for TARGET with ``target``, a container of the pod.
    ``log_path`` is relative to the pod's log directory.
    """

    sandbox: str
    name: str
    attempt: int = 0
    body: ContainerCreate
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    log_path: str = ""
    pid: str = "POD"
    target: str = ""
