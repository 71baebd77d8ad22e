"""``docker export``: a container's files as a tar archive, whether it runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import msgspec

from jaula.engine.threads import produce

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services


async def export(services: Services, container: Container) -> AsyncIterator[bytes]:
    """Yield the files of a container's image and writable layer, without its mounts.

    The layers of a running container are read through a read-only overlay of the same directories:
    a second writable mount of one upper directory is undefined.
    """
    from jaula.spec.rootfs import DirectoryRoot, OverlayRoot
    from jaula.storage.drivers.driver import open_root
    from jaula.storage.tar.writer import write_tree

    source = services.snapshots.root(container.id)
    if isinstance(source, OverlayRoot) and source.upper is not None:
        lowers = (source.upper, *source.lowers)
        source = msgspec.structs.replace(source, lowers=lowers, upper=None, work=None)
    assert isinstance(source, OverlayRoot | DirectoryRoot)

    def work(emit: Callable[[bytes], None]) -> None:
        with open_root(source) as root:
            write_tree(root, lambda data: emit(bytes(data)))

    services.events.emit("container", "export", container.id, container.record.event_attributes)
    async for chunk in produce(work):
        yield chunk
