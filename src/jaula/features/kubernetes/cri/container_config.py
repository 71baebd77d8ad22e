"""A ContainerConfig as a request to the engine. Pure, but for a seccomp profile of the host."""

from __future__ import annotations

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cri import cri_resources, security_context, stop_signal
from jaula.features.kubernetes.cri.cri_mounts import mount_spec, pod_mount
from jaula.features.kubernetes.cri.enums import enum_name
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.cri.sandbox_config import PROFILE, pod_ids
from jaula.spec.api_documents import (
    ContainerCreate,
    DeviceMapping,
    DeviceRequest,
    HostConfig,
)
from jaula.spec.pod import PodContainerRequest

_CDI_ANNOTATION = "cdi.k8s.io/"
_NO_LIMIT = -1


def container_request(sandbox: str, config: api_pb2.ContainerConfig) -> PodContainerRequest:
    """Return the request for a container in a sandbox.

    :raises InvalidRequest: when the configuration is not valid.
    """
    if not config.metadata.name:
        raise InvalidRequest("the configuration of a container has no name")
    context = config.linux.security_context
    return PodContainerRequest(
        sandbox=sandbox,
        name=config.metadata.name,
        attempt=config.metadata.attempt,
        body=ContainerCreate(
            image=config.image.image,
            entrypoint=tuple(config.command) or None,
            cmd=tuple(config.args) or None,
            working_dir=config.working_dir,
            env=tuple(_variable(pair) for pair in config.envs),
            user=_user(context),
            tty=config.tty,
            open_stdin=config.stdin,
            stdin_once=config.stdin_once,
            stop_signal=stop_signal.name_of(config.stop_signal),
            host_config=_host_config(config),
        ),
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_path=config.log_path,
        pid=enum_name(
            api_pb2.NamespaceMode, context.namespace_options.pid, "the mode of a namespace"
        ),
        target=context.namespace_options.target_id,
        ids=pod_ids(context.namespace_options),
        mounts=tuple(pod_mount(mount) for mount in config.mounts),
        user_specified_image=config.image.user_specified_image,
        groups_policy=enum_name(
            api_pb2.SupplementalGroupsPolicy,
            context.supplemental_groups_policy,
            "the policy of supplemental groups",
        ),
        unified=dict(config.linux.resources.unified),
        hugepage_limits=cri_resources.hugepage_limits(config.linux.resources),
    )


def _variable(pair: api_pb2.KeyValue) -> str:
    return f"{pair.key}={pair.value.decode('utf-8', 'surrogateescape')}"


def _user(context: api_pb2.LinuxContainerSecurityContext) -> str:
    """Return ``USER[:GROUP]``, '' for the image's.

    :raises InvalidRequest: when there is a group without a user.
    """
    user = context.run_as_username
    if ":" in user:
        raise InvalidRequest(f"run_as_username {user[:80]!r} is not a name")
    if context.HasField("run_as_user"):
        user = str(context.run_as_user.value)
    if not context.HasField("run_as_group"):
        return user
    if not user:
        raise InvalidRequest("run_as_group needs run_as_user or run_as_username")
    return f"{user}:{context.run_as_group.value}"


def _cdi_devices(config: api_pb2.ContainerConfig) -> tuple[str, ...]:
    """Return the names of CDI devices; older kubelets have them in annotations only."""
    if config.CDI_devices:
        return tuple(device.name for device in config.CDI_devices)
    return tuple(
        name
        for key, value in config.annotations.items()
        if key.startswith(_CDI_ANNOTATION)
        for name in value.split(",")
    )


def _host_config(config: api_pb2.ContainerConfig) -> HostConfig:
    """Return the limits, mounts and confinement. Without lists of paths the default ones count."""
    context, limits = config.linux.security_context, config.linux.resources
    cap_add, cap_drop = security_context.capability_changes(context.capabilities)
    return HostConfig(
        profile=PROFILE,
        mounts=tuple(mount_spec(mount, privileged=context.privileged) for mount in config.mounts),
        devices=tuple(
            DeviceMapping(
                path_on_host=device.host_path,
                path_in_container=device.container_path,
                cgroup_permissions=device.permissions,
            )
            for device in config.devices
        ),
        device_requests=tuple(
            DeviceRequest(driver="cdi", device_ids=(name,)) for name in _cdi_devices(config)
        ),
        privileged=context.privileged,
        cap_add=cap_add,
        cap_drop=cap_drop,
        group_add=tuple(str(group) for group in context.supplemental_groups),
        readonly_rootfs=context.readonly_rootfs,
        security_opt=tuple(security_context.container_options(context)),
        **cri_resources.container_limits(limits),
        oom_score_adj=limits.oom_score_adj,
        pids_limit=_NO_LIMIT,  # the kubelet limits the pod's cgroup
        masked_paths=tuple(context.masked_paths) or None,
        readonly_paths=tuple(context.readonly_paths) or None,
    )
