"""Pods of Kubernetes: requests for a sandbox and for a container in it, as frozen documents.

Source: ``k8s.io/cri-api`` runtime.v1, messages PodSandboxConfig and ContainerConfig.
"""

from __future__ import annotations

import msgspec

from jaula.spec.api_documents import ContainerCreate, ContainerUpdate

USERNS_HANDLER = "jaula-userns"
"""The runtime handler that gives a pod a user namespace of its own."""


class RuntimeHandler(msgspec.Struct, frozen=True):
    """A runtime handler, and what pods of it can ask for. The default one has no name.

    ``recursive_read_only``: mounts that are read-only with every mount below them.
    ``user_namespaces``: a user namespace with the ids that the kubelet has chosen.
    """

    name: str
    recursive_read_only: bool
    user_namespaces: bool


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


class PodInterface(msgspec.Struct, frozen=True, omit_defaults=True):
    """A network interface. ``mac`` is '' if the plugin did not report it."""

    name: str
    mac: str = ""


class PodAttachment(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The network of a pod, as the CNI plugins have reported it.

    ``interfaces`` are in the pod, ``host_interfaces`` are names on the host: bridges and the other
    ends. ``addresses`` are ``ADDRESS/LENGTH``, ``gateways`` addresses, and ``destinations``
    prefixes of routes.
    """

    interfaces: tuple[PodInterface, ...] = ()
    host_interfaces: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()


class PodLimits(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Limits of a whole pod, as the client states them; 0 and "" are not set.

    The client owns the pod's cgroup and writes them there. Memory and huge pages are in bytes, the
    latter by page size such as ``2MB``.
    """

    cpu_period: int = 0  # microseconds
    cpu_quota: int = 0  # microseconds
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory: int = 0
    memory_swap: int = 0  # memory plus swap; -1: no limit
    oom_score_adj: int = 0
    hugepage_limits: dict[str, int] = {}
    unified: dict[str, str] = {}


class PodSandboxRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A sandbox: the namespaces and limits that the containers of a pod have in common.

    ``body`` is the sandbox as a container: its namespaces, sysctls, resolver and cgroup parent.
    ``shared_pid`` gives the pod one process namespace, whose first process is the sandbox's.
    ``log_directory`` is the host's directory of the pod's logs, '' if there is none. ``ids`` are
    those that the client has chosen for its user namespace; None for a range of the engine's.
    ``resources`` are the limits of the pod without ``overhead``, the part of the sandbox.
    ``privileged`` permits privileged containers in the pod.
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
    resources: PodLimits | None = None
    overhead: PodLimits | None = None
    privileged: bool = False


class PodMount(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Properties of a container's mount beyond the API's mount with the same target.

    ``options`` are further mount options. ``relabel`` gives its files the container's SELinux
    label. ``ids`` is the id map that the mount must have; None for the one that the host allows.
    """

    target: str
    options: tuple[str, ...] = ()
    relabel: bool = False
    ids: PodIds | None = None


class PodContainerRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A container of a pod. ``body`` has no namespace modes: the sandbox and ``pid`` decide them.

    ``pid`` is POD, CONTAINER, NODE or TARGET, for TARGET with ``target``, a container of the pod.
    ``log_path`` is relative to the pod's log directory. ``groups_policy`` is Merge or Strict: with
    Merge the user's groups in the image are added to the requested ones. ``ids`` are those of the
    user namespace that the client expects the pod to have; None for no expectation.
    ``user_specified_image`` is the image as the pod names it, '' if unknown: ``body`` has the id
    that the pull returned. Docker's API lacks these limits: ``unified`` has values of cgroup v2
    files by name, ``hugepage_limits`` bytes by page size such as ``2MB``. ``checkpoint`` names the
    checkpoint from which the engine starts the container, '' for none: no client sets it.
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
    groups_policy: str = "Merge"
    ids: PodIds | None = None
    mounts: tuple[PodMount, ...] = ()
    user_specified_image: str = ""
    unified: dict[str, str] = {}
    hugepage_limits: dict[str, int] = {}
    checkpoint: str = ""


class PodContainerUpdate(ContainerUpdate, frozen=True, kw_only=True):
    """New limits of a container of a pod, with those that Docker's API lacks.

    ``unified`` and ``hugepage_limits`` change only the limits that they name; None leaves
    ``oom_score_adj`` unchanged.
    """

    unified: dict[str, str] = {}
    hugepage_limits: dict[str, int] = {}
    oom_score_adj: int | None = None
