"""Replace the changes of a container by those of a tar archive, for a container that never ran."""

from __future__ import annotations

from io import BufferedReader
from typing import TYPE_CHECKING, BinaryIO

from jaula.engine.threads import TrackedStream, consume, in_thread
from jaula.errors import InvalidRequest
from jaula.kernel.syncfs import sync_file_systems

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from jaula.engine.model.services import Services


async def replace_files(services: Services, id: str, stream: AsyncIterator[bytes]) -> None:
    """Give the snapshot ``id`` the changes in the tar of a layer. An empty stream changes nothing.

    The changes are complete, or the former ones stay.

    :raises InvalidRequest: when the archive is not valid or ends too early.
    :raises Unavailable: when the disk is full.
    """

    tracked = TrackedStream(stream)

    def work(file: BinaryIO, emit: Callable[[bool], None]) -> None:
        assert isinstance(file, BufferedReader)
        if not file.peek(1):
            tracked.read_end(file)
            return
        services.snapshots.stage(id, file)
        try:
            tracked.read_end(file)
        except InvalidRequest:
            services.snapshots.discard(id)
            raise
        if services.config.durable:
            sync_file_systems(services.config.paths.container(id))
        emit(True)

    is_staged = [each async for each in consume(aiter(tracked), work)]
    if is_staged:
        await in_thread(services.snapshots.replace, id)
