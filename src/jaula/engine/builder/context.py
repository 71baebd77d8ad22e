"""A build's context arrives: as the request's body, from an address, or on the session."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from jaula.engine.build_threads import in_thread
from jaula.engine.threads import feed
from jaula.errors import InvalidRequest, NotFound
from jaula.images.build import context
from jaula.spec.build_session import SessionRequestKind
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from jaula.engine.builder.client_session import ClientSession
    from jaula.images.build.remote.remote import RemoteSources
    from jaula.images.registry.cancellation import Cancellation


async def from_body(stream: AsyncIterator[bytes], path: str, cancel: Cancellation) -> None:
    """Unpack a tar into a directory of the engine's own.

    :raises InvalidRequest: it is damaged or hostile.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    feeding = asyncio.ensure_future(feed(stream, writing))

    def work() -> None:
        with open(reading, "rb", buffering=1 << 20) as file, open_directory(path) as directory:
            context.receive(file, directory, cancel=cancel)

    unpacking = asyncio.ensure_future(in_thread(work))
    try:
        await asyncio.shield(unpacking)
        await feeding
    finally:
        feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await feeding  # closes the pipe, which ends the thread
        with contextlib.suppress(Exception):
            await unpacking


async def from_address(
    address: str, path: str, remotes: RemoteSources, cancel: Cancellation
) -> str | None:
    """Fetch a context; the Dockerfile's text where there is nothing else."""

    def work() -> str | None:
        with open_directory(path) as directory:
            return context.fetch(address, directory, remotes, cancel)

    return await in_thread(work)


async def from_session(session: ClientSession, name: str, path: str, cancel: Cancellation) -> None:
    """A further context of the client's.

    :raises InvalidRequest: the client has none of that name.
    """
    stream = await session.ask(SessionRequestKind.CONTEXT, name)
    try:
        await from_body(stream.data(), path, cancel)
    except NotFound:
        raise InvalidRequest(
            f"there is no context {name!r}", hint=f"give it with --build-context {name}=DIRECTORY"
        ) from None
    finally:
        stream.close()
