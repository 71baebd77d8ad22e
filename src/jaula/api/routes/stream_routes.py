"""Long answers of containers: attach, logs, stats, wait, export."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from msgspec import structs

from jaula.api import compat
from jaula.api.http import response
from jaula.api.http.http_request import Query, Request
from jaula.api.http.response import (
    Answer,
    DelegatedResponse,
    HijackResponse,
    StreamResponse,
    close,
    json_lines,
)
from jaula.api.http.router import Routes
from jaula.errors import InvalidRequest, JaulaError
from jaula.spec import detach_keys, stdcopy
from jaula.spec.api_params import AttachOptions, LogOptions, WaitResult
from jaula.spec.visible_text import visible

_CONDITIONS = ("not-running", "next-exit", "removed")
_CONDITIONS_SINCE = (1, 30)
_ONE_SHOT_SINCE = (1, 41)
_MULTIPLEXED_SINCE = (1, 42)
_DESCRIPTOR_SECONDS = 5.0
_MAX_DESCRIPTORS = 64


def content_type(request: Request, tty: bool) -> bytes:
    """Return the media type of a container's output: multiplexed, unless it has a terminal."""
    if not tty and request.version >= _MULTIPLEXED_SINCE:
        return response.MULTIPLEXED_STREAM
    return response.RAW_STREAM


def error_writer(tty: bool) -> Callable[[JaulaError], bytes]:
    """Return the function that turns an error into a line of output, for a hijacked stream."""

    def encode_error(error: JaulaError) -> bytes:
        line = f"{visible(str(error))}\r\n".encode("utf-8", "replace")
        return line if tty else stdcopy.frame("stderr", line)

    return encode_error


def attach_options(query: Query) -> AttachOptions:
    """Return the options of an attach request."""
    keys = query.optional("detachKeys")
    return AttachOptions(
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        detach_keys=detach_keys.parse(keys) if keys is not None else None,
    )


async def attach(request: Request) -> Answer:
    """Attach to a container: ``POST /containers/{id}/attach``."""
    await request.ignore_body()
    query, engine, ref = request.query, request.engine.containers, request.name
    options = attach_options(query)
    tty = engine.tty(ref, control=True)

    async def take(descriptor: int, early: bytes) -> None:
        await engine.attach(ref, descriptor, structs.replace(options, early=early))

    return HijackResponse(content_type(request, tty), take, error_writer(tty))


async def descriptors(request: Request) -> Answer:
    """Give sockets to the program of the next start: ``POST /containers/{id}/descriptors``.

    The client sends one byte with the descriptors (SCM_RIGHTS) on the upgraded connection, a unix
    socket. The answer is one line: ``ok``, or the error.
    """
    await request.ignore_body()
    engine, ref = request.engine.containers, request.name
    engine.tty(ref, control=True)

    async def take(descriptor: int, early: bytes) -> None:
        with socket.socket(fileno=descriptor) as client:
            fds = await _receive_descriptors(client)
            await engine.give_descriptors(ref, fds)
            client.setblocking(True)
            client.sendall(b"ok\n")

    return HijackResponse(response.RAW_STREAM, take, error_writer(True))


async def _receive_descriptors(client: socket.socket) -> list[int]:
    """Return the descriptors of one message.

    :raises InvalidRequest: when there are none within some seconds.
    """
    if client.family != socket.AF_UNIX:
        raise InvalidRequest("descriptors need a connection by the engine's unix socket")
    client.setblocking(False)
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(client, readable.set)
    try:
        await asyncio.wait_for(readable.wait(), _DESCRIPTOR_SECONDS)
    except TimeoutError:
        raise InvalidRequest(f"no descriptors within {_DESCRIPTOR_SECONDS:.0f} s") from None
    finally:
        loop.remove_reader(client)
    data, fds, flags, _ = socket.recv_fds(client, 1, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    if not data or not fds or flags & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise InvalidRequest(f"the message has no descriptors, or more than {_MAX_DESCRIPTORS}")
    return fds


def tail(query: Query) -> int | None:
    """Return the number of last lines; None means all, as for any other text in Docker."""
    text = query.text("tail").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


async def logs(request: Request) -> Answer:
    """Get container logs: ``GET /containers/{id}/logs``."""
    query = request.query
    options = LogOptions(
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        since=query.nanoseconds("since") or None,
        until=query.nanoseconds("until") or None,
        tail=tail(query),
        follow=query.flag("follow"),
        timestamps=query.flag("timestamps"),
        details=query.flag("details"),
    )
    if not (options.stdout or options.stderr):
        raise InvalidRequest("Bad parameters: you must choose at least one stream")
    tty = request.engine.containers.tty(request.name)
    kind = content_type(request, tty)
    if options.follow:
        send = request.engine.containers.log_follower(request.name, options)
        return DelegatedResponse(send, kind)
    records = request.engine.containers.logs(request.name, options)
    return StreamResponse(_raw(records) if tty else _framed(records), kind)


async def _raw(records: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[bytes]:
    try:
        async for _, data in records:
            yield data
    finally:
        await close(records)


async def _framed(records: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[bytes]:
    try:
        async for stream, data in records:
            yield stdcopy.frame(stream, data)
    finally:
        await close(records)


async def stats(request: Request) -> Answer:
    """Get container stats based on resource usage: ``GET /containers/{id}/stats``."""
    stream = request.query.flag("stream", True)
    one_shot = request.version >= _ONE_SHOT_SINCE and request.query.flag("one-shot")
    if stream and one_shot:
        raise InvalidRequest("cannot have stream=true and one-shot=true")
    samples = request.engine.containers.stats(request.name, stream=stream, one_shot=one_shot)
    return StreamResponse(json_lines(samples, partial(compat.stats, version=request.version)))


async def wait(request: Request) -> Answer:
    """Wait for a container: ``POST /containers/{id}/wait``.

    The head is sent before the container ends, so the client knows that its wait is registered.
    """
    condition = _CONDITIONS[0]
    if request.version >= _CONDITIONS_SINCE:
        condition = request.query.text("condition") or condition
    if condition not in _CONDITIONS:
        raise InvalidRequest(
            f'invalid condition: "{condition[:80]}"',
            hint="must be one of " + ", ".join(_CONDITIONS),
        )
    future = await request.engine.containers.wait(request.name, condition)
    return StreamResponse(_wait_result(future), at_once=True)


async def _wait_result(future: asyncio.Future[WaitResult]) -> AsyncIterator[bytes]:
    try:
        result = await future
    except JaulaError as exc:
        result = WaitResult(-1, str(exc))
    document: dict[str, Any] = {"StatusCode": result.status_code}
    if result.error:
        document["Error"] = {"Message": result.error}
    yield response.encode(document)


async def export(request: Request) -> Answer:
    """Export a container: ``GET /containers/{id}/export``."""
    request.begin_transfer()
    return StreamResponse(request.engine.containers.export(request.name), response.OCTETS)


ROUTES: Routes = (
    ("POST", "/containers/{id}/attach", attach),
    ("POST", "/containers/{id}/descriptors", descriptors),
    ("GET", "/containers/{id}/logs", logs),
    ("GET", "/containers/{id}/stats", stats),
    ("POST", "/containers/{id}/wait", wait),
    ("GET", "/containers/{id}/export", export),
)
