"""Kubernetes' protocols for commands: the streams of exec and attach.

Sources: ``k8s.io/cri-streaming``, package remotecommand, and client-go's package of that name.

Over SPDY the client opens a stream for each of error, stdin, stdout, stderr and resize, named by
the header ``streamType``. Over a WebSocket these are the channels 3, 0, 1, 2 and 4. The versions:

* ``channel.k8s.io``, ``v2``: the error stream has a text if the command failed.
* ``v3`` adds the stream ``resize``: JSON documents with ``Width`` and ``Height``.
* ``v4``: the error stream has a Status of the Kubernetes API, with the exit status of the command.
* ``v5``, for WebSockets only: the client can end stdin (:mod:`.websocket`).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from jaula.errors import JaulaError
from jaula.features.kubernetes.cri.streaming import spdy
from jaula.features.kubernetes.cri.streaming.backend import (
    Backend,
    ClientGone,
    CommandRequest,
    ExecRequest,
    Sink,
    Size,
    Source,
    Streams,
)
from jaula.features.kubernetes.cri.streaming.streaming_transport import (
    SocketTransport,
    Timeouts,
    run_session,
)

V1, V2, V3 = "channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io"
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
BASE64, V4_BASE64 = "base64.channel.k8s.io", "v4.base64.channel.k8s.io"
SPDY_PROTOCOLS = (V4, V3, V2, V1)
WEBSOCKET_PROTOCOLS = (V5, V4, V4_BASE64, V1, BASE64)

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)  # channels of a WebSocket
_MAX_SIZE = 256  # bytes of the document of a size
_MAX_DIMENSION = 0xFFFF

_log = logging.getLogger("jaula.features.kubernetes.cri")


# -- the result of a command -------------------------------------------------------------------


class Status(NamedTuple):
    """The result of a command. ``reason`` and ``message`` are '' for success."""

    message: str = ""
    reason: str = ""
    exit_code: int = 0


def exit_status(code: int) -> Status:
    """Return the result of a command that has exited."""
    if not code:
        return Status()
    message = f"command terminated with non-zero exit code: exit status {code}"
    return Status(message, "NonZeroExitCode", code)


def failure(message: str) -> Status:
    """Return the result of a command that could not be run."""
    return Status(f"Internal error occurred: {message}", "InternalError")


def encode_status(status: Status, protocol: str) -> bytes:
    """Return the bytes for the error stream of a version of the protocol."""
    if protocol not in (V4, V4_BASE64, V5):
        return status.message.encode()
    if not status.reason:
        return b'{"metadata":{},"status":"Success"}'
    document: dict[str, Any] = {
        "metadata": {},
        "status": "Failure",
        "message": status.message,
        "reason": status.reason,
    }
    if status.exit_code:
        causes = [{"reason": "ExitCode", "message": str(status.exit_code)}]
        document["details"] = {"causes": causes}
    else:
        document["code"] = 500
    return json.dumps(document, separators=(",", ":")).encode()


# -- the size of the terminal ------------------------------------------------------------------


class SizeParser:
    """Parses the sizes that a client sends. After a document that is not a size it ignores all."""

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a document
        self._broken = False

    def feed(self, data: bytes) -> Size | None:
        """Return the last size in ``data``."""
        if self._broken:
            return None
        latest = None
        *documents, self._rest = (self._rest + data).split(b"}")
        for document in documents:
            size = _parse_size(document + b"}")
            if size is None:
                self._broken = True
                break
            latest = size
        if len(self._rest) > _MAX_SIZE:
            self._broken = True
        if self._broken:
            self._rest = b""
        return latest


def _parse_size(document: bytes) -> Size | None:
    if len(document) > _MAX_SIZE:
        return None
    try:
        members = json.loads(document)
    except ValueError:
        return None
    if not isinstance(members, dict):
        return None
    lower = {name.lower(): value for name, value in members.items()}
    width, height = lower.get("width", 0), lower.get("height", 0)
    for value in (width, height):
        if type(value) is not int or not 0 <= value <= _MAX_DIMENSION:
            return None
    return Size(width, height)


class ResizeEvents(AsyncIterator[Size]):
    """The sizes of a terminal; of several that wait, only the last one."""

    def __init__(self, source: Source | None) -> None:
        self._source = source
        self._parser = SizeParser()

    async def __anext__(self) -> Size:
        while self._source is not None and (data := await self._source.read()):
            if (size := self._parser.feed(data)) is not None:
                return size
        raise StopAsyncIteration


# -- sessions ----------------------------------------------------------------------------------


async def serve_spdy(
    transport: SocketTransport,
    request: CommandRequest,
    protocol: str,
    backend: Backend,
    timeouts: Timeouts,
) -> None:
    """Serve one command over SPDY until it ends or the client is gone."""
    expected = _stream_types(request, resize=protocol in (V3, V4))
    streams: dict[str, spdy.Stream] = {}
    complete = asyncio.get_running_loop().create_future()

    def accept(stream: spdy.Stream) -> spdy.ResetStatus | None:
        kind = stream.headers.get("streamtype", "")
        if kind not in expected or kind in streams:
            return spdy.ResetStatus.REFUSED_STREAM
        streams[kind] = stream
        if len(streams) == len(expected) and not complete.done():
            complete.set_result(None)
        return None

    async def work() -> None:
        try:
            async with asyncio.timeout(timeouts.creation):
                await complete
        except TimeoutError:
            _log.info("a client did not open its streams in %g seconds", timeouts.creation)
            return
        if protocol == V1 and "stdin" in streams:
            streams["stdin"].end()  # these clients wait for it
        outputs = [streams[kind] for kind in ("stdout", "stderr") if kind in streams]
        status = await _call(
            backend,
            request,
            streams.get("stdin"),
            streams.get("stdout"),
            streams.get("stderr"),
            streams.get("resize"),
        )
        for output in outputs:
            output.end()
        await _send_status(streams["error"], status, protocol)
        streams["error"].end()

    await run_session(transport, spdy.Connection(transport, accept), work(), timeouts.idle)


def _stream_types(request: CommandRequest, *, resize: bool) -> set[str]:
    """Return the types of the streams that the client opens."""
    types = {"error"}
    types |= {kind for kind in ("stdin", "stdout", "stderr") if getattr(request, kind)}
    if request.tty and resize:
        types.add("resize")
    return types


async def serve_websocket(
    transport: SocketTransport,
    request: CommandRequest,
    protocol: str,
    backend: Backend,
    timeouts: Timeouts,
) -> None:
    """Serve one command over a WebSocket until it ends or the client is gone.

    ``protocol`` is '' if the client did not name one; it then is ``channel.k8s.io``.
    """
    from jaula.features.kubernetes.cri.streaming import channel_websocket

    readable = [_STDIN] * request.stdin + [_RESIZE] * request.tty
    connection = channel_websocket.Connection(
        channel_websocket.WebSocket(transport),
        5,
        readable,
        base64=protocol in (BASE64, V4_BASE64),
        half_close=protocol == V5,
    )

    def channel(number: int, requested: bool) -> channel_websocket.Channel | None:
        return connection.channel(number) if requested else None

    async def work() -> None:
        try:
            # an empty message tells the client that the session is established
            first = _STDOUT if request.stdout else _STDERR if request.stderr else _ERROR
            await connection.send(first, b"")
        except ClientGone:
            return
        status = await _call(
            backend,
            request,
            channel(_STDIN, request.stdin),
            channel(_STDOUT, request.stdout),
            channel(_STDERR, request.stderr),
            channel(_RESIZE, request.tty),
        )
        await _send_status(connection.channel(_ERROR), status, protocol)

    await run_session(transport, connection, work(), timeouts.idle)


async def _call(
    backend: Backend,
    request: CommandRequest,
    stdin: Source | None,
    stdout: Sink | None,
    stderr: Sink | None,
    resize: Source | None,
) -> Status:
    """Run the command and return its result."""
    streams = Streams(
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        tty=request.tty,
        resize=ResizeEvents(resize),
    )
    try:
        if isinstance(request, ExecRequest):
            action = "executing command in container"
            return exit_status(await backend.exec(request.container_id, request.command, streams))
        action = "attaching to container"
        await backend.attach(request.container_id, streams)
    except ClientGone:
        return Status()  # for no client
    except JaulaError as error:
        return failure(f"error {action}: {error}")
    except Exception as error:  # noqa: BLE001 - every failure is reported to the client
        _log.error("error %s %s", action, request.container_id, exc_info=error)
        return failure(f"error {action}: internal error ({type(error).__name__})")
    return Status()


async def _send_status(sink: Sink, status: Status, protocol: str) -> None:
    try:
        await sink.write(encode_status(status, protocol))
    except ClientGone:
        _log.debug("a client left before the status of its command")
