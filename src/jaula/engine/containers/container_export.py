"""``docker export``: a container's files as a tar archive, whether it runs or not."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.containers import container_rootfs
from jaula.engine.containers.container_rootfs import RootfsView
from jaula.engine.threads import produce

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.spec.runtime_spec import IDMapping


async def export(
    services: Services,
    container: Container,
    ids_of: Callable[[Container], tuple[IDMapping, ...]],
) -> AsyncIterator[bytes]:
    """Yield the files of a container's image and writable layer, without its mounts.

    A running container is read through its own root: the kernel warns of a second overlay of its
    upper directory. A stopped one is read through a read-only overlay of the same directories, so
    that a start meanwhile has the only writable one.
    """
    from jaula.spec.rootfs import DirectoryRoot, OverlayRoot
    from jaula.storage.drivers.storage_driver import open_root
    from jaula.storage.tar.tar_writer import write_tree

    source = services.snapshots.root(container.id)
    assert isinstance(source, OverlayRoot | DirectoryRoot)
    running = None
    if isinstance(source, OverlayRoot) and source.upper is not None:
        lowers = (source.upper, *source.lowers)
        source = msgspec.structs.replace(source, lowers=lowers, upper=None, work=None)
        running = await container_rootfs.open_running(container, ids_of, container.live)

    def work(emit: Callable[[bytes], None]) -> None:
        def write(data: bytes | memoryview) -> None:
            emit(bytes(data))

        if running is None:
            with contextlib.ExitStack() as stack:
                write_tree(stack.enter_context(open_root(source)), write)
                mounted = stack.pop_all()
            # The kernel frees a dentry and an inode for each file. The reader does not wait for it.
            threading.Thread(target=mounted.close, name="umount", daemon=True).start()
            return
        try:
            mount = container_rootfs.clone_root(running)
        finally:
            running.close()
        try:
            root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
            try:
                write_tree(root, write, owner=RootfsView(root, running.ids).inside)
            finally:
                os.close(root)
        finally:
            os.close(mount)

    services.events.emit("container", "export", container.id, container.record.event_attributes)
    async for chunk in produce(work):
        yield chunk
