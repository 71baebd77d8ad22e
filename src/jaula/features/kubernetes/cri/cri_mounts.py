"""Mounts of a ContainerConfig as mounts of the engine, and back as mounts of a status. Pure.

Sources: ``k8s.io/cri-api`` runtime.v1, message Mount; the validation of Kubernetes' core API, which
allows the propagation Bidirectional to privileged containers only; KEP-5855 for ``mount_options``.
"""

from __future__ import annotations

from jaula.errors import ImageMountFailed, InvalidRequest
from jaula.features.kubernetes.cri.enums import enum_name
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.cri.sandbox_config import id_mapping
from jaula.spec.api_documents import BindOptions, ImageOptions
from jaula.spec.api_documents import Mount as MountSpec
from jaula.spec.pod import PodMount
from jaula.state.container_records import IMAGE_MOUNT, MountRecord

_PROPAGATION = {
    "PROPAGATION_PRIVATE": "rprivate",
    "PROPAGATION_HOST_TO_CONTAINER": "rslave",
    "PROPAGATION_BIDIRECTIONAL": "rshared",
}
_PROPAGATION_OF = {
    "rslave": api_pb2.PROPAGATION_HOST_TO_CONTAINER,
    "rshared": api_pb2.PROPAGATION_BIDIRECTIONAL,
}
MOUNT_OPTIONS = ("noexec", "nodev", "nosuid")
"""The values of ``Mount.mount_options`` (KEP-5855)."""


def mount_spec(mount: api_pb2.Mount, *, privileged: bool) -> MountSpec:
    """Return a mount as the engine's API has it.

    :raises InvalidRequest: when its fields exclude each other.
    :raises ImageMountFailed: when those of an image do.
    """
    mode = enum_name(api_pb2.MountPropagation, mount.propagation, "a mount's propagation")
    if mount.HasField("image") and mount.image.image:
        _check_image(mount)
        return MountSpec(
            type=IMAGE_MOUNT,
            source=mount.image.image,
            target=mount.container_path,
            image_options=ImageOptions(subpath=mount.image_sub_path),
        )
    if mount.image_sub_path:
        raise _invalid(mount, "has an image_sub_path and no image")
    if mount.recursive_read_only and not mount.readonly:
        raise _invalid(mount, "is recursive_read_only and not readonly")
    if mount.recursive_read_only and mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        raise _invalid(mount, f"is recursive_read_only and not private but {mode}")
    if mount.propagation == api_pb2.PROPAGATION_BIDIRECTIONAL and not privileged:
        raise _invalid(mount, f"is {mode}, which only a privileged container can have")
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


def _check_image(mount: api_pb2.Mount) -> None:
    title = f"the image {mount.image.image} at {mount.container_path}"
    if mount.host_path:
        raise ImageMountFailed(f"{title} has a path of the host, {mount.host_path}")
    if not mount.readonly:
        raise ImageMountFailed(f"{title} must be read-only")
    path = mount.image_sub_path
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ImageMountFailed(f"{path!r} must be a path within {title}, without '..'")


def pod_mount(mount: api_pb2.Mount) -> PodMount:
    """Return what a mount has beyond the engine's API.

    :raises InvalidRequest: when an option is unknown, or the id map is not one range.
    """
    for option in mount.mount_options:
        if option not in MOUNT_OPTIONS:
            raise _invalid(
                mount,
                f"has the option {option[:80]!r}, which must be one of {', '.join(MOUNT_OPTIONS)}",
            )
    ids = None
    if mount.uidMappings or mount.gidMappings:
        ids = id_mapping(mount.uidMappings, mount.gidMappings)
    return PodMount(
        target=mount.container_path,
        options=tuple(mount.mount_options),
        relabel=mount.selinux_relabel,
        ids=ids,
    )


def _invalid(mount: api_pb2.Mount, what: str) -> InvalidRequest:
    return InvalidRequest(f"the mount at {mount.container_path[:200]!r} {what}")


def mount_status(record: MountRecord) -> api_pb2.Mount:
    """Return a mount of a container as its status shows it.

    The reference of an image is the id that its pull returned.
    """
    mount = api_pb2.Mount(
        container_path=record.destination,
        readonly=record.read_only,
        recursive_read_only="rro" in record.options,
        propagation=_PROPAGATION_OF.get(record.propagation, api_pb2.PROPAGATION_PRIVATE),
        selinux_relabel="Z" in record.mode.split(","),
        mount_options=[option for option in MOUNT_OPTIONS if option in record.options]
        if record.type == "bind"
        else [],
    )
    if record.type == IMAGE_MOUNT:
        mount.image.image, mount.image.image_ref = record.source, record.image
        mount.image_sub_path = record.subpath
    else:
        mount.host_path = record.source
    return mount
