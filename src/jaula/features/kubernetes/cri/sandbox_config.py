"""A PodSandboxConfig as a request to the engine. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cri import security_context
from jaula.features.kubernetes.cri.cri_resources import pod_limits
from jaula.features.kubernetes.cri.enums import enum_name
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig
from jaula.spec.pod import USERNS_HANDLER, PodIds, PodMetadata, PodPort, PodSandboxRequest

_OOM_SCORE = -998  # as the kubelet's other processes: the containers of a pod are killed first
_CPU_SHARES = 2
_LAST_ID = (1 << 32) - 2
PROFILE = "docker"
"""The preset of pods: what Kubernetes leaves open has the defaults of its other runtimes."""


def sandbox_request(config: api_pb2.PodSandboxConfig, runtime_handler: str) -> PodSandboxRequest:
    """Return the request for a sandbox.

    :raises InvalidRequest: when the configuration is not valid.
    """
    if not config.HasField("metadata"):
        raise InvalidRequest("the configuration of a pod sandbox has no metadata")
    context = config.linux.security_context
    modes = context.namespace_options
    ids = pod_ids(modes)
    if modes.pid == api_pb2.TARGET:
        raise InvalidRequest("a pod sandbox has no target for its process namespace")
    host_network = modes.network == api_pb2.NODE
    host = HostConfig(
        profile=PROFILE,
        network_mode="host" if host_network else "none",
        uts_mode="host" if host_network else "",
        ipc_mode="host" if modes.ipc == api_pb2.NODE else "shareable",
        pid_mode="host" if modes.pid == api_pb2.NODE else "",
        userns_mode="" if ids is not None or runtime_handler == USERNS_HANDLER else "host",
        runtime="" if runtime_handler == USERNS_HANDLER else runtime_handler,
        cgroup_parent=config.linux.cgroup_parent,
        sysctls=dict(config.linux.sysctls),
        dns=tuple(config.dns_config.servers),
        dns_search=tuple(config.dns_config.searches),
        dns_options=tuple(config.dns_config.options),
        readonly_rootfs=True,
        cap_drop=("ALL",),
        security_opt=("no-new-privileges", *security_context.sandbox_options(context)),
        oom_score_adj=_OOM_SCORE,
        cpu_shares=_CPU_SHARES,
        log_config=LogConfig(type="none"),
    )
    metadata = config.metadata
    return PodSandboxRequest(
        metadata=PodMetadata(metadata.name, metadata.uid, metadata.namespace, metadata.attempt),
        body=ContainerCreate(hostname="" if host_network else config.hostname, host_config=host),
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_directory=config.log_directory,
        runtime_handler=runtime_handler,
        shared_pid=modes.pid == api_pb2.POD,
        privileged=context.privileged,
        ids=ids,
        resources=pod_limits(config.linux, "resources"),
        overhead=pod_limits(config.linux, "overhead"),
        ports=tuple(
            PodPort(
                port.host_port,
                port.container_port,
                enum_name(api_pb2.Protocol, port.protocol, "a port's protocol").lower(),
                port.host_ip,
            )
            for port in config.port_mappings
            if port.host_port
        ),
    )


def pod_ids(modes: api_pb2.NamespaceOption) -> PodIds | None:
    """Return the ids of a pod's user namespace; None if the pod is in the host's.

    A kubelet's ranges begin at 65536 at least. Other clients may choose ids of the host's users,
    but not those of root.

    :raises InvalidRequest: when the mappings are not one range for users and groups.
    """
    options = modes.userns_options
    if not modes.HasField("userns_options") or options.mode == api_pb2.NODE:
        return None
    if options.mode != api_pb2.POD:
        raise InvalidRequest("the mode of a pod's user namespace must be POD or NODE")
    return id_mapping(options.uids, options.gids)


def id_mapping(uids: Iterable[api_pb2.IDMapping], gids: Iterable[api_pb2.IDMapping]) -> PodIds:
    """Return the range of an id map. The kubelet maps one, the same for users and groups.

    :raises InvalidRequest: when the mappings are others, or have ids of the host's own users.
    """
    rows = [
        [(row.container_id, row.host_id, row.length) for row in mappings]
        for mappings in (uids, gids)
    ]
    if rows[0] != rows[1] or len(rows[0]) != 1 or rows[0][0][0] != 0:
        raise InvalidRequest(
            "the user namespace of a pod needs one mapping, from id 0 on, the same for users and"
            " groups"
        )
    _, start, count = rows[0][0]
    if start < 1 or not 0 < count <= _LAST_ID - start:
        raise InvalidRequest(
            f"the user namespace of a pod cannot have {count} ids from {start} on",
            hint=f"ids begin at 1 and end at {_LAST_ID}",
        )
    return PodIds(start, count)
