"""SELinux labels of a container: the level at its creation, the labels of its files at each start.

:mod:`jaula.security.lsm.selinux_choice` decides; this module applies, with the container store,
the policy and the files. On a host without SELinux nothing happens.

Mounts label the root and every new file system (``mountLabel`` of the spec). An extended attribute
labels the engine's own files for the container, volumes, and binds with ``z`` or ``Z``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.engine.containers import engine_socket
from jaula.engine.networks import provided_files
from jaula.engine.oci_spec import security_opt
from jaula.errors import JaulaError
from jaula.kernel import selinuxfs
from jaula.security.lsm import relabel_denylist, selinux_choice
from jaula.spec.rootfs import DirectoryRoot, RootSource
from jaula.state.container_records import ENGINE_SOCKET
from jaula.storage.relabel import relabel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord, MountRecord, ResolvedRequest


def take_level(services: Services, container_id: str, resolved: ResolvedRequest) -> str:
    """Return the level of a new container; one that joins ipc or pid of another gets that one's.

    :raises Unavailable: when every pair of categories is in use.
    :raises Unsupported: when the policy does not know the resulting label.
    """
    if not services.host.selinux:
        return ""
    options = selinux_choice.parse(resolved.security.options.labels)
    requested = options.level or _joined_level(services, resolved)
    level = services.container_store.take_level(container_id, requested=requested)
    labels = security_opt.selinux_labels(resolved, services.host, level)
    for what, label in (("process", labels.process), ("file", labels.mount)):
        if label and not selinuxfs.check_context(label):
            services.container_store.free_level(container_id)
            raise selinux_choice.unknown_context_error(what, label)
    return level


def _joined_level(services: Services, resolved: ResolvedRequest) -> str:
    for mode in (resolved.namespaces.ipc, resolved.namespaces.pid):
        if mode.container:
            return services.container_store.find(mode.container).record.level
    return ""


def label_files(services: Services, record: ContainerRecord, root: RootSource) -> None:
    """Label everything that a start binds into the container.

    May take long, for volumes with many files.

    :raises InvalidRequest: when a mount with ``z`` or ``Z`` must not be relabelled.
    """
    if not services.host.selinux:
        return
    label = security_opt.selinux_labels(record.resolved, services.host, record.level).mount
    shared = str(services.host.selinux_types.file._replace(level=selinux_choice.SHARED_LEVEL))
    for path in provided_files.own_files(services, record):
        _label(path, shared if record.resolved.namespaces.net.container else label)
    if isinstance(root, DirectoryRoot):
        _label(root.path, label)
    if any(mount.type == ENGINE_SOCKET for mount in record.mounts):
        _label(engine_socket.path(services.config.paths, record.id), label)
    label_mounts(services, record, record.mounts)


def label_mounts(
    services: Services, record: ContainerRecord, mounts: Iterable[MountRecord]
) -> None:
    """Label volumes, and binds with ``z`` or ``Z``, for a container. May take long.

    :raises InvalidRequest: when one must not be relabelled.
    """
    if not services.host.selinux:
        return
    label = security_opt.selinux_labels(record.resolved, services.host, record.level).mount
    shared = str(services.host.selinux_types.file._replace(level=selinux_choice.SHARED_LEVEL))
    for mount in mounts:
        option = relabel_option(mount)
        if option:
            try:
                _label(
                    mount.source,
                    label if option == "Z" else shared,
                    own=_own(services) if mount.type == "bind" else None,
                )
            except JaulaError as error:
                error.message = f"{mount.source}: {error.message}"
                raise


def relabel_option(mount: MountRecord) -> str:
    """Return ``Z`` for a private label, ``z`` for a shared one, '' to leave the label as it is.

    Volumes belong to containers alone, so they are always labelled.
    """
    options = mount.mode.split(",")
    if mount.type == "volume":
        return "Z" if "Z" in options else "z"
    if mount.type != "bind":
        return ""
    return "Z" if "Z" in options else "z" if "z" in options else ""


def check_mount(services: Services, mount: MountRecord) -> None:
    """Check that a mount with ``z`` or ``Z`` is not a directory of the host's system.

    :raises InvalidRequest: when it is.
    """
    if not services.host.selinux or mount.type != "bind" or not relabel_option(mount):
        return
    relabel_denylist.check(os.path.realpath(mount.source), own=_own(services))


def _own(services: Services) -> tuple[str, str]:
    return str(services.config.paths.root), str(services.config.paths.run)


def _label(path: str, label: str, *, own: tuple[str, str] | None = None) -> None:
    """Label a file or a tree; with ``own``, only if :mod:`relabel_denylist` allows it.

    ``path`` is the host's. The check uses the kernel's name of the opened file.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if own is not None:
            relabel_denylist.check(os.readlink(f"/proc/self/fd/{fd}"), own=own)
        relabel(fd, label)
    finally:
        os.close(fd)
