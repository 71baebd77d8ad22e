"""Records of the engine as sandboxes and containers of CRI, and the filters of lists. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from jaula.features.kubernetes.cri import cri_resources, stop_signal
from jaula.features.kubernetes.cri.cri_mounts import mount_status
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.images.reference import index_name, parse
from jaula.spec.pod import PodIds, RuntimeHandler
from jaula.state.container_records import ContainerRecord, NamespaceKind, NamespaceMode, Status


class ImageNames(NamedTuple):
    """The full names of an image: those with a tag, and those with its digest at a registry."""

    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


_NO_NAMES = ImageNames()
_LIVE = (Status.RUNNING, Status.PAUSED)


# -- the runtime ---------------------------------------------------------------------------------


def runtime_handler(handler: RuntimeHandler) -> api_pb2.RuntimeHandler:
    """Return a runtime handler with its features."""
    return api_pb2.RuntimeHandler(
        name=handler.name,
        features=api_pb2.RuntimeHandlerFeatures(
            recursive_read_only_mounts=handler.recursive_read_only,
            user_namespaces=handler.user_namespaces,
        ),
    )


def runtime_features(handlers: Sequence[RuntimeHandler]) -> api_pb2.RuntimeFeatures:
    """Return the features of the runtime as a whole.

    A pod with a user namespace can be on the host's network with every handler that has user
    namespaces.
    """
    return api_pb2.RuntimeFeatures(
        supplemental_groups_policy=True,
        user_namespaces_host_network=any(handler.user_namespaces for handler in handlers),
        mount_options=True,
    )


# -- sandboxes -----------------------------------------------------------------------------------


def sandbox(record: ContainerRecord) -> api_pb2.PodSandbox:
    """Return a sandbox as lists show it."""
    assert record.sandbox is not None
    request = record.sandbox.request
    return api_pb2.PodSandbox(
        id=record.id,
        metadata=_metadata(record),
        state=_sandbox_state(record),
        created_at=record.created,
        labels=request.labels,
        annotations=request.annotations,
        runtime_handler=request.runtime_handler,
    )


def sandbox_status(record: ContainerRecord) -> api_pb2.PodSandboxStatus:
    """Return the status of a sandbox."""
    assert record.sandbox is not None
    request, modes = record.sandbox.request, record.resolved.namespaces
    first, *more = record.sandbox.addresses or ("",)
    pid = api_pb2.POD if request.shared_pid else api_pb2.CONTAINER
    return api_pb2.PodSandboxStatus(
        id=record.id,
        metadata=_metadata(record),
        state=_sandbox_state(record),
        created_at=record.created,
        network=api_pb2.PodSandboxNetworkStatus(
            ip=first, additional_ips=[api_pb2.PodIP(ip=address) for address in more]
        ),
        linux=api_pb2.LinuxPodSandboxStatus(
            namespaces=api_pb2.Namespace(
                options=api_pb2.NamespaceOption(
                    network=_mode(modes.net),
                    ipc=_mode(modes.ipc),
                    userns_options=_userns(request.ids),
                    pid=api_pb2.NODE if modes.pid.host else pid,
                )
            )
        ),
        labels=request.labels,
        annotations=request.annotations,
        runtime_handler=request.runtime_handler,
    )


def _userns(ids: PodIds | None) -> api_pb2.UserNamespace | None:
    if ids is None:
        return None
    row = api_pb2.IDMapping(container_id=0, host_id=ids.start, length=ids.count)
    return api_pb2.UserNamespace(mode=api_pb2.POD, uids=[row], gids=[row])


def _mode(mode: NamespaceMode) -> api_pb2.NamespaceMode:
    return api_pb2.NODE if mode.kind is NamespaceKind.HOST else api_pb2.POD


def _metadata(record: ContainerRecord) -> api_pb2.PodSandboxMetadata:
    assert record.sandbox is not None
    metadata = record.sandbox.request.metadata
    return api_pb2.PodSandboxMetadata(
        name=metadata.name,
        uid=metadata.uid,
        namespace=metadata.namespace,
        attempt=metadata.attempt,
    )


def _sandbox_state(record: ContainerRecord) -> api_pb2.PodSandboxState:
    return api_pb2.SANDBOX_READY if record.status in _LIVE else api_pb2.SANDBOX_NOTREADY


def matches_sandbox(filter: api_pb2.PodSandboxFilter, item: api_pb2.PodSandbox) -> bool:
    """Return whether a sandbox is selected. An id may be a prefix."""
    return (
        item.id.startswith(filter.id)
        and (not filter.HasField("state") or filter.state.state == item.state)
        and has_labels(item.labels, filter.label_selector)
    )


# -- containers ----------------------------------------------------------------------------------


def container(record: ContainerRecord) -> api_pb2.Container:
    """Return a container as lists show it."""
    assert record.pod is not None
    return api_pb2.Container(
        id=record.id,
        pod_sandbox_id=record.pod.sandbox,
        metadata=api_pb2.ContainerMetadata(name=record.pod.name, attempt=record.pod.attempt),
        image=api_pb2.ImageSpec(image=record.body.image),
        image_ref=record.image,
        image_id=record.image,
        state=_container_state(record),
        created_at=record.created,
        labels=record.pod.labels,
        annotations=record.pod.annotations,
    )


def container_status(
    record: ContainerRecord,
    sandbox: ContainerRecord | None,
    names: ImageNames = _NO_NAMES,
) -> api_pb2.ContainerStatus:
    """Return the status of a container.

    ``sandbox`` is the record of its sandbox. ``names`` are those of its image; one that has been
    removed has none.
    """
    assert record.pod is not None
    directory = sandbox.sandbox.request.log_directory if sandbox and sandbox.sandbox else ""
    state = _container_state(record)
    exited = state == api_pb2.CONTAINER_EXITED
    return api_pb2.ContainerStatus(
        id=record.id,
        metadata=api_pb2.ContainerMetadata(name=record.pod.name, attempt=record.pod.attempt),
        state=state,
        created_at=record.created,
        started_at=record.started_at,
        finished_at=record.finished_at if exited else 0,
        exit_code=record.exit_code if exited else 0,
        image=api_pb2.ImageSpec(
            image=_name(names, record.asked_image),
            user_specified_image=record.pod.user_specified_image,
        ),
        image_ref=next(iter(names.digests), record.image),
        image_id=record.image,
        reason=_reason(record) if exited else "",
        message=record.error,
        labels=record.pod.labels,
        annotations=record.pod.annotations,
        mounts=[mount_status(mount) for mount in record.mounts],
        log_path=posixpath.join(directory, record.pod.log_path) if record.pod.log_path else "",
        resources=api_pb2.ContainerResources(linux=cri_resources.reported(record)),
        user=_user(record),
        stop_signal=stop_signal.value_of(record.body.stop_signal),
    )


def _user(record: ContainerRecord) -> api_pb2.ContainerUser | None:
    """Return the ids of the first process inside the container, whatever it has set since."""
    user = record.user
    if user is None:
        return None
    return api_pb2.ContainerUser(
        linux=api_pb2.LinuxContainerUser(
            uid=user.uid, gid=user.gid, supplemental_groups=user.additional_gids
        )
    )


def _name(names: ImageNames, asked: str) -> str:
    """Return the name of an image for users: the one that they have asked for, or the first."""
    full = index_name(asked)
    if not names.tags or (full and parse(full).canonical in names.tags):
        return asked
    return names.tags[0]


def _container_state(record: ContainerRecord) -> api_pb2.ContainerState:
    match record.status:
        case Status.CREATED:
            return api_pb2.CONTAINER_EXITED if record.finished_at else api_pb2.CONTAINER_CREATED
        case Status.RUNNING | Status.PAUSED | Status.RESTARTING:
            return api_pb2.CONTAINER_RUNNING
        case Status.EXITED | Status.REMOVING:
            return api_pb2.CONTAINER_EXITED
    return api_pb2.CONTAINER_UNKNOWN


def _reason(record: ContainerRecord) -> str:
    if record.oom_killed:
        return "OOMKilled"
    if not record.started_at:
        return "StartError"
    return "Error" if record.exit_code else "Completed"


def matches_container(filter: api_pb2.ContainerFilter, item: api_pb2.Container) -> bool:
    """Return whether a container is selected. Ids may be prefixes."""
    return (
        item.id.startswith(filter.id)
        and item.pod_sandbox_id.startswith(filter.pod_sandbox_id)
        and (not filter.HasField("state") or filter.state.state == item.state)
        and has_labels(item.labels, filter.label_selector)
    )


def has_labels(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Return whether there is every label of a selector, with its value."""
    return all(labels.get(key) == value for key, value in selector.items())


def info(record: ContainerRecord) -> str:
    """Return what a verbose status adds, as JSON."""
    document: dict[str, Any] = {
        "pid": record.pid,
        "sandboxID": record.pod.sandbox if record.pod else record.id,
    }
    if record.sandbox is not None:
        request = record.sandbox.request
        document |= {"resources": request.resources, "overhead": request.overhead}
    return msgspec.json.encode(document).decode()
