"""A PodSandboxConfig as a request to the engine. Pure."""

from __future__ import annotations

from jaula.cri import security
from jaula.cri.enums import enum_name
from jaula.cri.proto import api_pb2 as api
from jaula.errors import InvalidRequest, Unsupported
from jaula.spec.api import ContainerCreate, HostConfig, LogConfig
from jaula.spec.pod import USERNS_HANDLER, PodMetadata, PodPort, PodSandboxRequest

_OOM_SCORE = -998  # as the kubelet's other processes: the containers of a pod are killed first
_CPU_SHARES = 2
PROFILE = "docker"
"""The preset of pods: what Kubernetes leaves open has the defaults of its other runtimes."""


def sandbox_request(config: api.PodSandboxConfig, runtime_handler: str) -> PodSandboxRequest:
    """Return the request for a sandbox.

    :raises InvalidRequest: when the configuration is not valid.
    :raises Unsupported: when it asks for a user namespace with the kubelet's own mappings.
    """
    if not config.HasField("metadata"):
        raise InvalidRequest("the configuration of a pod sandbox has no metadata")
    context = config.linux.security_context
    modes = context.namespace_options
    if modes.userns_options.mode == api.POD and modes.userns_options.uids:
        raise Unsupported("user namespaces of pods with mappings of the kubelet are not supported")
    host_network = modes.network == api.NODE
    host = HostConfig(
        profile=PROFILE,
        network_mode="host" if host_network else "none",
        uts_mode="host" if host_network else "",
        ipc_mode="host" if modes.ipc == api.NODE else "shareable",
        pid_mode="host" if modes.pid == api.NODE else "",
        userns_mode="" if runtime_handler == USERNS_HANDLER else "host",
        runtime="" if runtime_handler == USERNS_HANDLER else runtime_handler,
        cgroup_parent=config.linux.cgroup_parent,
        sysctls=dict(config.linux.sysctls),
        dns=tuple(config.dns_config.servers),
        dns_search=tuple(config.dns_config.searches),
        dns_options=tuple(config.dns_config.options),
        readonly_rootfs=True,
        cap_drop=("ALL",),
        security_opt=("no-new-privileges", *security.sandbox_options(context)),
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
        shared_pid=modes.pid == api.POD,
        ports=tuple(
            PodPort(
                port.host_port,
                port.container_port,
                enum_name(api.Protocol, port.protocol, "a port's protocol").lower(),
                port.host_ip,
            )
            for port in config.port_mappings
            if port.host_port
        ),
    )
