"""The /dev/shm that containers of one IPC namespace share: a mount in the owner's run directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.engine.oci_spec import security_opt
from jaula.errors import Conflict
from jaula.kernel import mounts
from jaula.kernel.mounts import MS
from jaula.kernel.namespace_threads import clone_tree_of

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord


def shared(services: Services, record: ContainerRecord) -> str | None:
    """Return the path of a /dev/shm that containers share, mounted; None for one of its own.

    :raises Conflict: when the container that it belongs to does not run.
    """
    resolved = record.resolved
    if resolved.namespaces.ipc.container:
        return of(services, services.container_store.find(resolved.namespaces.ipc.container))
    if not resolved.namespaces.shareable_ipc:
        return None
    path = str(services.config.paths.container_run(record.id) / "shm")
    os.makedirs(path, mode=0o700, exist_ok=True)
    size = record.host_config.shm_size or 64 * 1024 * 1024
    if not os.path.ismount(path):
        flags = MS.NOSUID | MS.NODEV | MS.NOEXEC
        label = security_opt.selinux_labels(resolved, services.host, record.level).mount
        context = f',context="{label}"' if label else ""
        mounts.mount("shm", path, "tmpfs", flags, f"mode=1777,size={size}{context}")
    return path


def of(services: Services, owner: Container) -> str:
    """Return the path of the /dev/shm that a running container shares, mounted.

    :raises Conflict: when it does not run.
    """
    path = str(services.config.paths.container_run(owner.id) / "shm")
    if not os.path.ismount(path):
        _fetch_shm(owner, path)
    return path


def _fetch_shm(owner: Container, path: str) -> None:
    """Mount the /dev/shm that a previous engine made, which the shim of its container still has.

    :raises Conflict: when the container does not run.
    """
    tree = clone_tree_of(owner.record.shim_pid, path) if owner.live else -1
    if tree < 0:
        raise Conflict(f"/dev/shm of container {owner.name} cannot be shared: it does not run")
    try:
        mounts.move_mount(tree, path)
    finally:
        os.close(tree)
