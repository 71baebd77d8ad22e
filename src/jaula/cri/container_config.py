"""A ContainerConfig as a request to the engine. Pure, but for a seccomp profile of the host."""

from __future__ import annotations

from typing import Any

from jaula.cri import security
from jaula.cri.enums import enum_name
from jaula.cri.proto import api_pb2 as api
from jaula.cri.sandbox_config import PROFILE
from jaula.errors import InvalidRequest, Unsupported
from jaula.spec.api import (
    BindOptions,
    ContainerCreate,
    ContainerUpdate,
    DeviceMapping,
    DeviceRequest,
    HostConfig,
    ImageOptions,
)
from jaula.spec.api import Mount as MountSpec
from jaula.spec.pod import PodContainerRequest

_PROPAGATION = {
    "PROPAGATION_PRIVATE": "rprivate",
    "PROPAGATION_HOST_TO_CONTAINER": "rslave",
    "PROPAGATION_BIDIRECTIONAL": "rshared",
}
_NO_LIMIT = -1


def container_request(sandbox: str, config: api.ContainerConfig) -> PodContainerRequest:
    """Return the request for a container in a sandbox.

    :raises InvalidRequest: when the configuration is not valid.
    :raises Unsupported: when it asks for groups without those of the image.
    """
    if not config.metadata.name:
        raise InvalidRequest("the configuration of a container has no name")
    context = config.linux.security_context
    if context.supplemental_groups_policy == api.Strict:
        raise Unsupported(
            "supplementalGroupsPolicy Strict is not supported",
            hint="with Merge the groups of the user in the image's /etc/group are added",
        )
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
            stop_signal=_signal(config.stop_signal),
            host_config=_host_config(config),
        ),
        labels=dict(config.labels),
        annotations=dict(config.annotations),
        log_path=config.log_path,
        pid=enum_name(api.NamespaceMode, context.namespace_options.pid, "the mode of a namespace"),
        target=context.namespace_options.target_id,
    )


def container_update(limits: api.LinuxContainerResources) -> ContainerUpdate:
    """Return the update of a container's limits; 0 and '' leave a limit unchanged."""
    return ContainerUpdate(**_limits(limits))


def _limits(limits: api.LinuxContainerResources) -> dict[str, Any]:
    """Return the limits by the names that a container's creation and its update share."""
    return {
        "cpu_period": limits.cpu_period,
        "cpu_quota": limits.cpu_quota,
        "cpu_shares": limits.cpu_shares,
        "cpuset_cpus": limits.cpuset_cpus,
        "cpuset_mems": limits.cpuset_mems,
        "memory": limits.memory_limit_in_bytes,
        "memory_swap": limits.memory_swap_limit_in_bytes or limits.memory_limit_in_bytes,
    }


def _signal(number: api.Signal) -> str:
    """Return the name of a stop signal, '' for the image's."""
    if not number:
        return ""
    name = enum_name(api.Signal, number, "the stop signal").removeprefix("SIGNAL_")
    return name.replace("PLUS", "+").replace("MINUS", "-")


def _variable(pair: api.KeyValue) -> str:
    return f"{pair.key}={pair.value.decode('utf-8', 'surrogateescape')}"


def _user(context: api.LinuxContainerSecurityContext) -> str:
    """Return ``USER[:GROUP]``, '' for the image's.

    :raises InvalidRequest: when there is a group without a user.
    """
    user = context.run_as_username
    if context.HasField("run_as_user"):
        user = str(context.run_as_user.value)
    if not context.HasField("run_as_group"):
        return user
    if not user:
        raise InvalidRequest("run_as_group needs run_as_user or run_as_username")
    return f"{user}:{context.run_as_group.value}"


def _host_config(config: api.ContainerConfig) -> HostConfig:
    """Return the limits, mounts and confinement. Without lists of paths the default ones count."""
    context, limits = config.linux.security_context, config.linux.resources
    return HostConfig(
        profile=PROFILE,
        mounts=tuple(_mount(mount) for mount in config.mounts),
        devices=tuple(
            DeviceMapping(
                path_on_host=device.host_path,
                path_in_container=device.container_path,
                cgroup_permissions=device.permissions,
            )
            for device in config.devices
        ),
        device_requests=tuple(
            DeviceRequest(driver="cdi", device_ids=(device.name,)) for device in config.CDI_devices
        ),
        privileged=context.privileged,
        cap_add=tuple(context.capabilities.add_capabilities),
        cap_drop=tuple(context.capabilities.drop_capabilities),
        group_add=tuple(str(group) for group in context.supplemental_groups),
        readonly_rootfs=context.readonly_rootfs,
        security_opt=tuple(security.container_options(context)),
        **_limits(limits),
        oom_score_adj=limits.oom_score_adj,
        pids_limit=_NO_LIMIT,  # the kubelet limits the pod's cgroup
        masked_paths=tuple(context.masked_paths) or None,
        readonly_paths=tuple(context.readonly_paths) or None,
    )


def _mount(mount: api.Mount) -> MountSpec:
    mode = enum_name(api.MountPropagation, mount.propagation, "a mount's propagation")
    if mount.HasField("image") and mount.image.image:
        return MountSpec(
            type="image",
            source=mount.image.image,
            target=mount.container_path,
            image_options=ImageOptions(subpath=mount.image_sub_path),
        )
    return MountSpec(
        type="bind",
        source=mount.host_path,
        target=mount.container_path,
        read_only=mount.readonly,
        bind_options=BindOptions(
            propagation=_PROPAGATION[mode],
            create_mountpoint=True,
            read_only_non_recursive=mount.readonly and not mount.recursive_read_only,
            read_only_force_recursive=mount.recursive_read_only,
        ),
    )
