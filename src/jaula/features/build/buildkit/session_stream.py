"""Messages of the calls to a client on its session, with time-outs and the engine's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jaula.errors import Conflict, JaulaError, NotAuthorized, NotFound, Unavailable
from jaula.grpc.grpc_status import Code, GrpcError

if TYPE_CHECKING:
    from jaula.grpc.http2_connection import Stream

IDLE_TIMEOUT = 120.0  # seconds without a message of a transfer


async def receive(stream: Stream) -> bytes | None:
    """Return the client's next message; None after the last.

    :raises JaulaError: when the call failed or the client is silent.
    """
    try:
        async with asyncio.timeout(IDLE_TIMEOUT):
            return await stream.receive()
    except GrpcError as error:
        raise as_engine_error(error) from None
    except TimeoutError:
        raise Unavailable("the client does not answer in time") from None


async def send(stream: Stream, message: bytes) -> None:
    """Send a message to the client.

    :raises JaulaError: when the call failed or the client does not read.
    """
    try:
        async with asyncio.timeout(IDLE_TIMEOUT):
            await stream.send(message)
    except GrpcError as error:
        raise as_engine_error(error) from None
    except TimeoutError:
        raise Unavailable("the client does not read in time") from None


async def send_all(stream: Stream, messages: Iterator[bytes]) -> None:
    """Send messages to the client, as :func:`send` does."""
    for message in messages:
        await send(stream, message)


def as_engine_error(error: GrpcError) -> JaulaError:
    """Return the failure of a call to the client as an error of the engine. Pure."""
    if error.code in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
        return NotFound(error.message)
    if error.code is Code.ALREADY_EXISTS:
        return Conflict(error.message)
    if error.code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED):
        return NotAuthorized(f"the client refuses: {error.message}")
    if error.code in (Code.UNAVAILABLE, Code.CANCELLED):
        return Unavailable(f"the client's session is gone: {error.message}", hint="start again")
    return Unavailable(f"the client reports: {error.message}")
