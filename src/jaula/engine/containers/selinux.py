"""SELinux labels of a container: chosen when it is made, on its files before each start.

Decided in :mod:`jaula.security.lsm.selinux`; done here, since it takes the registry, the policy and the
files. On a host without SELinux nothing happens.

What is labelled: the root and every fresh file system by the mount itself (``mountLabel`` of the
spec); the engine's own files for the container, volumes, and binds with ``z`` or ``Z`` by an
attribute.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.engine.networks import etc_files
from jaula.engine.oci_spec import security
from jaula.errors import JaulaError
from jaula.kernel import selinuxfs
from jaula.security.lsm import relabel_denylist, selinux
from jaula.spec.rootfs import DirectoryRoot, RootSource
from jaula.storage.relabel import relabel

if TYPE_CHECKING:
    from jaula.engine.model.services import Services
    from jaula.state.records import ContainerRecord, MountRecord, ResolvedRequest


def take_level(parts: Services, container_id: str, resolved: ResolvedRequest) -> str:
    """The level for a new container; a container that it shares memory with lends its own.

    :raises Unavailable: every pair of categories is in use.
    :raises Unsupported: the policy does not know what would result.
    """
    if not parts.host.selinux:
        return ""
    options = selinux.parse(resolved.security.options.labels)
    asked = options.level or _lent(parts, resolved)
    level = parts.registry.take_level(container_id, asked=asked)
    chosen = security.selinux_labels(resolved, parts.host, level)
    for what, label in (("process", chosen.process), ("file", chosen.mount)):
        if label and not selinuxfs.check_context(label):
            parts.registry.free_level(container_id)
            raise selinux.refuse_unknown(what, label)
    return level


def _lent(parts: Services, resolved: ResolvedRequest) -> str:
    for mode in (resolved.namespaces.ipc, resolved.namespaces.pid):
        if mode.container:
            return parts.registry.find(mode.container).record.level
    return ""


def label_files(parts: Services, record: ContainerRecord, root: RootSource) -> None:
    """Give everything that a start binds into the container the label that it is to have.

    May take long, for volumes with many files.

    :raises InvalidRequest: a mount with ``z`` or ``Z`` that must not be labelled.
    """
    if not parts.host.selinux:
        return
    label = security.selinux_labels(record.resolved, parts.host, record.level).mount
    shared = str(parts.host.selinux_types.file._replace(level=selinux.SHARED_LEVEL))
    for path in etc_files.own_files(parts, record):
        _label(path, shared if record.resolved.namespaces.net.container else label)
    if isinstance(root, DirectoryRoot):
        _label(root.path, label)
    for mount in record.mounts:
        wanted = relabel_option(mount)
        if wanted:
            try:
                _label(
                    mount.source,
                    label if wanted == "Z" else shared,
                    own=_own(parts) if mount.type == "bind" else None,
                )
            except JaulaError as error:
                error.message = f"{mount.source}: {error.message}"
                raise


def relabel_option(mount: MountRecord) -> str:
    """``Z``: for this container alone, ``z``: for all containers, empty: left as it is.

    Volumes are the containers' own, so they are always labelled.
    """
    options = mount.mode.split(",")
    if mount.type == "volume":
        return "Z" if "Z" in options else "z"
    if mount.type != "bind":
        return ""
    return "Z" if "Z" in options else "z" if "z" in options else ""


def check_mount(parts: Services, mount: MountRecord) -> None:
    """Refuse to label what belongs to the host's system.

    :raises InvalidRequest: it does.
    """
    if not parts.host.selinux or mount.type != "bind" or not relabel_option(mount):
        return
    relabel_denylist.check(os.path.realpath(mount.source), own=_own(parts))


def _own(parts: Services) -> tuple[str, str]:
    return str(parts.config.paths.root), str(parts.config.paths.run)


def _label(path: str, label: str, *, own: tuple[str, str] | None = None) -> None:
    """Label a file or a tree; with ``own``, only what :mod:`systemtrees` does not refuse.

    The path is the host's. It is asked about by the name that the kernel has for what was opened.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if own is not None:
            relabel_denylist.check(os.readlink(f"/proc/self/fd/{fd}"), own=own)
        relabel(fd, label)
    finally:
        os.close(fd)
