"""``--mount type=image``: the files of an image, read-only, in a container.

The image is resolved when the container is created, so the container keeps its layers whatever the
name refers to later. At each start the layers are mounted for the owners of the container's user
namespace and bound by the runtime (:mod:`jaula.engine.volumes.staged_mounts`).
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.oci_spec import security_opt
from jaula.engine.threads import in_own_thread
from jaula.engine.volumes.staged_mounts import StagedMounts, mount_layers, user_namespace
from jaula.errors import ImageMountFailed, NotFound
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.runtime.create import user_namespace_maps
from jaula.spec.rootfs import OverlayRoot, RootSource
from jaula.state.container_records import IMAGE_MOUNT, MountRecord

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdMaps
    from jaula.images.store.image_store import Lease
    from jaula.state.container_records import ContainerRecord

log = logging.getLogger("jaula.volumes")

_DIRECTORY = "images"
"""Name of the directory of mount points in the run directory of a container."""


def resolve_image(services: Services, lease: Lease, mount: MountRecord) -> MountRecord:
    """Return the mount with the image's id and layers, which ``lease`` pins.

    :raises ImageMountFailed: when there is no such image. 404 would make the docker command look
        for the container's image at a registry.
    """
    try:
        image = services.images.pin_image(lease, services.images.resolve(mount.source))
    except NotFound as error:
        raise ImageMountFailed(
            f'invalid mount config for type "image": {error.message}', hint="pull the image first"
        ) from None
    services.image_policy.check_run(image, mount.source)
    return msgspec.structs.replace(mount, image=image.id, layers=services.images.mountable(image))


def check_directory(services: Services, mount: MountRecord) -> None:
    """Check that the path of a resolved mount is a directory in the image. Blocking.

    A link in the path may not lead out of the image.

    :raises ImageMountFailed: when it is not.
    """
    title = f"image {mount.source}"
    try:
        root = mount_layers(services.snapshots.view(mount.layers), None, (0, 0), None)
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            resolve = RESOLVE.BENEATH | RESOLVE.NO_MAGICLINKS
            os.close(openat2(root, mount.subpath or ".", flags, resolve=resolve))
        finally:
            os.close(root)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno == errno.EXDEV:
            reason = "a link in it leads out of the image"
        raise ImageMountFailed(f"{mount.subpath!r} is not in {title}: {reason}") from error


def launchers_directory(services: Services, image: str) -> Path:
    """Return the directory of the launchers of a toolbox image, by its id."""
    return services.config.paths.launchers / image.removeprefix("sha256:")


def with_launchers(services: Services, view: RootSource, image: str) -> RootSource:
    """Return the source of a toolbox image with its launchers, if the host can mount them.

    Above an image without launchers there is an empty layer, if the host has SELinux: only an
    overlay of two layers can hide the labels of the files.
    """
    directory = launchers_directory(services, image)
    try:
        is_needed = services.host.selinux or any(directory.iterdir())
    except FileNotFoundError:
        return view
    if not is_needed:
        return view
    from jaula.engine.containers import launchers

    composed = launchers.add_layer(view, str(directory), user_xattr=services.host.rootless)
    if isinstance(view, OverlayRoot):
        return composed
    try:  # a storage driver without overlayfs may be in use because the host has none
        os.close(mount_layers(composed, None, (0, 0), None))
    except OSError as error:
        log.info("the tools of a debug session have no launchers: %s", error)
        return view
    return composed


async def mount_images(
    services: Services, record: ContainerRecord, maps: IdMaps
) -> tuple[tuple[MountRecord, ...], StagedMounts | None]:
    """Return the mounts of a start with those of images as binds, and what holds these.

    The caller detaches the result when the runtime has bound it.

    :raises ImageMountFailed: when an image does not have the path.
    :raises NotAuthorized: when the image policy does not allow an image any more.
    """
    images = [mount for mount in record.mounts if mount.type == IMAGE_MOUNT]
    if not images:
        return record.mounts, None
    for mount in images:
        services.image_policy.check_start(mount.image, mount.source)
    staged = StagedMounts(services.config.paths.container_run(record.id) / _DIRECTORY)
    uids, gids = maps
    try:
        async with user_namespace(services, maps) as user_fd:
            attach = _Attach(services, record, (uids, gids or uids), user_fd, staged)
            binds = await in_own_thread(
                lambda: {m.destination: attach.one(n, m) for n, m in enumerate(images)}
            )
    except BaseException:
        staged.detach()
        raise
    return tuple(binds.get(mount.destination, mount) for mount in record.mounts), staged


class _Attach:
    """Mounts images in ``staged``. Synchronous, for a thread of its own."""

    def __init__(
        self,
        services: Services,
        record: ContainerRecord,
        maps: IdMaps,
        user_fd: int | None,
        staged: StagedMounts,
    ) -> None:
        label = security_opt.selinux_labels(record.resolved, services.host, record.level).mount
        self._label = (label or None) if services.host.selinux else None
        self._services = services
        self._is_debug_copy = record.debug_copy
        self._view = services.snapshots.view
        self._owner = (
            user_namespace_maps.host_id(maps[0], 0),
            user_namespace_maps.host_id(maps[1], 0),
        )
        self._user_fd = user_fd
        self._staged = staged

    def one(self, number: int, mount: MountRecord) -> MountRecord:
        """Mount one image at mount point ``number``; return the bind mount."""
        root = self._view(mount.layers)
        if self._is_debug_copy:
            from jaula.engine.containers.launchers import TOOLBOX

            if mount.destination == TOOLBOX:
                root = with_launchers(self._services, root, mount.image)
        if self._label and isinstance(root, OverlayRoot) and len(root.lowers) == 1:
            # Only an overlay can hide the labels of the files, and it needs two layers.
            empty = str(self._staged.make_dir(f"{number}-empty"))
            root = msgspec.structs.replace(root, lowers=(*root.lowers, empty))
        try:
            tree = mount_layers(root, self._user_fd, self._owner, self._label)
        except OSError as error:
            raise ImageMountFailed(
                f"image {mount.source} cannot be mounted: {error.strerror}"
            ) from error
        source = self._staged.move_part(tree, number, mount.subpath, f"image {mount.source}")
        return msgspec.structs.replace(mount, type="bind", source=source, mapped=True)
