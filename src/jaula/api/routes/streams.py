"""What comes out of a container over time: attach, logs, stats, wait, export."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from msgspec import structs

from jaula.api import stdcopy
from jaula.api.http import response
from jaula.api.http.json_stream import close, lines
from jaula.api.http.query import Query
from jaula.api.http.request import Request
from jaula.api.http.response import Answer, HijackResponse, StreamResponse
from jaula.api.router import Routes
from jaula.errors import InvalidRequest, JaulaError
from jaula.spec import detach_keys
from jaula.spec.api_params import AttachOptions, LogOptions, WaitResult

_CONDITIONS = ("not-running", "next-exit", "removed")
_CONDITIONS_SINCE = (1, 30)
_ONE_SHOT_SINCE = (1, 41)
_MULTIPLEXED_SINCE = (1, 42)


def content_type(call: Request, tty: bool) -> bytes:
    """The media type of a container's output: framed unless it has a terminal."""
    if not tty and call.version >= _MULTIPLEXED_SINCE:
        return response.MULTIPLEXED_STREAM
    return response.RAW_STREAM


def refusal(tty: bool) -> Callable[[JaulaError], bytes]:
    """How an error is told on a hijacked stream: as a line of output."""

    def words(problem: JaulaError) -> bytes:
        line = f"{problem}\r\n".encode("utf-8", "replace")
        return line if tty else stdcopy.frame("stderr", line)

    return words


def wishes(query: Query) -> AttachOptions:
    """What a client that attaches asks for."""
    keys = query.optional("detachKeys")
    return AttachOptions(
        stream=query.flag("stream"),
        logs=query.flag("logs"),
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        detach_keys=detach_keys.parse(keys) if keys is not None else None,
    )


async def attach(call: Request) -> Answer:
    """``POST /containers/{id}/attach``."""
    await call.ignore_body()
    query, engine, ref = call.query, call.engine.containers, call.name
    options = wishes(query)
    tty = engine.tty(ref, control=True)

    async def take(descriptor: int, early: bytes) -> None:
        await engine.attach(ref, descriptor, structs.replace(options, early=early))

    return HijackResponse(content_type(call, tty), take, refusal(tty))


def tail(query: Query) -> int | None:
    """The number of last lines; "all", nothing and nonsense mean all of them, as in Docker."""
    text = query.text("tail").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


async def logs(call: Request) -> Answer:
    """``GET /containers/{id}/logs``."""
    query = call.query
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
    tty = call.engine.containers.tty(call.name)
    records = call.engine.containers.logs(call.name, options)
    chunks = _raw(records) if tty else _framed(records)
    return StreamResponse(chunks, content_type(call, tty), at_once=options.follow)


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


async def stats(call: Request) -> Answer:
    """``GET /containers/{id}/stats``."""
    stream = call.query.flag("stream", True)
    one_shot = call.version >= _ONE_SHOT_SINCE and call.query.flag("one-shot")
    if stream and one_shot:
        raise InvalidRequest("cannot have stream=true and one-shot=true")
    samples = call.engine.containers.stats(call.name, stream=stream, one_shot=one_shot)
    return StreamResponse(lines(samples))


async def wait(call: Request) -> Answer:
    """The head goes out before the container ends, so a client knows that its wait is in place."""
    condition = _CONDITIONS[0]
    if call.version >= _CONDITIONS_SINCE:
        condition = call.query.text("condition") or condition
    if condition not in _CONDITIONS:
        raise InvalidRequest(
            f'invalid condition: "{condition[:80]}"', hint="one of " + ", ".join(_CONDITIONS)
        )
    future = await call.engine.containers.wait(call.name, condition)
    return StreamResponse(_outcome(future), at_once=True)


async def _outcome(future: asyncio.Future[WaitResult]) -> AsyncIterator[bytes]:
    try:
        result = await future
    except JaulaError as problem:
        result = WaitResult(-1, str(problem))
    document: dict[str, Any] = {"StatusCode": result.status_code}
    if result.error:
        document["Error"] = {"Message": result.error}
    yield response.encode(document)


async def export(call: Request) -> Answer:
    """``GET /containers/{id}/export``."""
    return StreamResponse(call.engine.containers.export(call.name), response.OCTETS)


ROUTES: Routes = (
    ("POST", "/containers/{id}/attach", attach),
    ("GET", "/containers/{id}/logs", logs),
    ("GET", "/containers/{id}/stats", stats),
    ("POST", "/containers/{id}/wait", wait),
    ("GET", "/containers/{id}/export", export),
)
