"""Kubernetes' protocols for forwarded ports.

Sources: ``k8s.io/cri-streaming``, package portforward, and client-go's package of that name.

``portforward.k8s.io``, over SPDY or over SPDY inside a WebSocket: for each connection the client
opens a pair of streams, ``data`` and ``error`` in the header ``streamType``. They have the same
``requestID`` and ``port``. Without a request id (Kubernetes 1.0) the ids of the streams tell: the
data stream is the next one after the error stream.

``v4.channel.k8s.io``, over a WebSocket: one connection for each port of the request, on the
channels 2 N for data and 2 N + 1 for errors. The first message of both has the port, as 16 bits in
little endian order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from jaula.errors import JaulaError
from jaula.features.kubernetes.cri.streaming import spdy
from jaula.features.kubernetes.cri.streaming.backend import (
    Backend,
    ClientGone,
    Duplex,
    PortForwardRequest,
)
from jaula.features.kubernetes.cri.streaming.streaming_transport import (
    SocketTransport,
    Timeouts,
    Transport,
    run_session,
)
from jaula.tasks import BackgroundTasks

V1 = "portforward.k8s.io"
TUNNEL = f"{spdy.PROTOCOL}+{V1}"
V4, V4_BASE64 = "v4.channel.k8s.io", "v4.base64.channel.k8s.io"
SPDY_PROTOCOLS = (V1,)
WEBSOCKET_PROTOCOLS = (TUNNEL, V4, V4_BASE64)
MAX_FORWARDS = 512  # connections of one client at a time

_DATA, _ERROR = "data", "error"
_MAX_ID = 128  # characters of a request id

_log = logging.getLogger("jaula.features.kubernetes.cri")


def parse_pair(headers: Mapping[str, str], stream_id: int) -> tuple[str, str, int] | None:
    """Return the request id, the type and the port of a stream, or None for invalid headers."""
    kind, text = headers.get("streamtype", ""), headers.get("port", "")
    if kind not in (_DATA, _ERROR) or not (text.isascii() and text.isdecimal()) or len(text) > 5:
        return None
    port = int(text)
    request_id = headers.get("requestid", "")
    if not 1 <= port <= 65535 or len(request_id) > _MAX_ID:
        return None
    return request_id or str(stream_id if kind == _ERROR else stream_id - 2), kind, port


class _Pair:
    """The streams of one connection that is being opened."""

    def __init__(self, expiry: asyncio.TimerHandle) -> None:
        self.expiry = expiry
        self.streams: dict[str, spdy.Stream] = {}


class StreamPairs:
    """The pairs of one client. ``forward`` is called for each complete pair."""

    def __init__(
        self, forward: Callable[[spdy.Stream, spdy.Stream, int], None], timeout: float
    ) -> None:
        """``timeout`` is the time for the client to complete a pair, in seconds."""
        self._forward = forward
        self._timeout = timeout
        self._pairs: dict[str, _Pair] = {}

    def accept(self, stream: spdy.Stream) -> spdy.ResetStatus | None:
        """Add a stream to its pair."""
        parsed = parse_pair(stream.headers, stream.id)
        if parsed is None:
            return spdy.ResetStatus.CANCEL
        request_id, kind, port = parsed
        pair = self._pairs.get(request_id)
        if pair is None:
            if len(self._pairs) >= MAX_FORWARDS:
                return spdy.ResetStatus.REFUSED_STREAM
            loop = asyncio.get_running_loop()
            pair = _Pair(loop.call_later(self._timeout, self._expire, request_id))
            self._pairs[request_id] = pair
        if kind in pair.streams:
            return spdy.ResetStatus.CANCEL
        pair.streams[kind] = stream
        stream.on_reset(lambda: self._reset(request_id))
        if len(pair.streams) == 2:
            self._remove(request_id)
            self._forward(pair.streams[_DATA], pair.streams[_ERROR], port)
        return None

    def _remove(self, request_id: str) -> None:
        """Forget a pair, without its streams."""
        pair = self._pairs.pop(request_id)
        pair.expiry.cancel()
        for stream in pair.streams.values():
            stream.on_reset(None)

    def _reset(self, request_id: str) -> None:
        """Reset a pair of which the client has reset a stream."""
        pair = self._pairs[request_id]
        self._remove(request_id)
        for stream in pair.streams.values():
            stream.reset()

    def _expire(self, request_id: str) -> None:
        """Reset the stream of a pair that the client did not complete."""
        _log.info("a client did not open both streams in %g seconds", self._timeout)
        self._reset(request_id)

    def close(self) -> None:
        """Forget the pairs that are not complete."""
        for request_id in tuple(self._pairs):
            self._remove(request_id)


class _Forwards:
    """The forwarded connections of one client."""

    def __init__(self, request: PortForwardRequest, backend: Backend, timeouts: Timeouts) -> None:
        self._request = request
        self._backend = backend
        self._tasks = BackgroundTasks(_log, "a forwarded connection failed")
        self._pairs = StreamPairs(self._start, timeouts.creation)

    def accept(self, stream: spdy.Stream) -> spdy.ResetStatus | None:
        """Take over a stream, or refuse it."""
        if len(self._tasks) >= MAX_FORWARDS:
            return spdy.ResetStatus.REFUSED_STREAM
        return self._pairs.accept(stream)

    def _start(self, data: spdy.Stream, error: spdy.Stream, port: int) -> None:
        task = self._tasks.spawn(self._serve(data, error, port))
        data.on_reset(task.cancel)

    async def _serve(self, data: spdy.Stream, error: spdy.Stream, port: int) -> None:
        error.discard()
        try:
            message = await _forward(self._backend, self._request.sandbox_id, port, data)
            if message:
                await error.write(message)
                data.reset()
        except ClientGone:
            _log.debug("a client left before the error of port %d", port)
        finally:
            data.discard()
            data.end()
            error.end()

    async def run(self, gone: asyncio.Event) -> None:
        """Wait until the client is ``gone`` and its last input is processed."""
        try:
            await gone.wait()
            await self._tasks.finish()
        finally:
            self._pairs.close()
            await self._tasks.close()


async def _forward(backend: Backend, sandbox_id: str, port: int, stream: Duplex) -> bytes:
    """Forward one connection; return the message of its failure, b'' for none."""
    try:
        await backend.port_forward(sandbox_id, port, stream)
    except ClientGone:
        return b""
    except JaulaError as error:
        return f"error forwarding port {port} to pod {sandbox_id}: {error}".encode()
    except Exception as error:  # noqa: BLE001 - every failure is reported to the client
        _log.error("error forwarding port %d to pod %s", port, sandbox_id, exc_info=error)
        name = type(error).__name__
        return f"error forwarding port {port} to pod {sandbox_id}: internal error ({name})".encode()
    return b""


async def serve_spdy(
    transport: SocketTransport,
    request: PortForwardRequest,
    protocol: str,
    backend: Backend,
    timeouts: Timeouts,
) -> None:
    """Forward connections over SPDY until the client is gone."""
    await _serve_spdy(transport, transport, request, backend, timeouts)


async def _serve_spdy(
    client: SocketTransport,
    transport: Transport,
    request: PortForwardRequest,
    backend: Backend,
    timeouts: Timeouts,
) -> None:
    """Forward connections over SPDY on ``transport``, which is inside of ``client``."""
    forwards = _Forwards(request, backend, timeouts)
    connection = spdy.Connection(transport, forwards.accept)
    await run_session(client, connection, forwards.run(connection.gone), timeouts.idle)


async def serve_websocket(
    transport: SocketTransport,
    request: PortForwardRequest,
    protocol: str,
    backend: Backend,
    timeouts: Timeouts,
) -> None:
    """Forward connections over a WebSocket until they have ended or the client is gone."""
    from jaula.features.kubernetes.cri.streaming import channel_websocket

    socket = channel_websocket.WebSocket(transport)
    if protocol == TUNNEL:
        tunnel = channel_websocket.TunnelTransport(socket)
        await _serve_spdy(transport, tunnel, request, backend, timeouts)
        return
    count = len(request.ports)
    connection = channel_websocket.Connection(
        socket, 2 * count, range(0, 2 * count, 2), base64=protocol == V4_BASE64
    )

    async def forward(index: int, port: int) -> None:
        data, error = connection.channel(2 * index), connection.channel(2 * index + 1)
        try:
            if message := await _forward(backend, request.sandbox_id, port, data):
                await error.write(message)
        except ClientGone:
            _log.debug("a client left before the end of port %d", port)
        finally:
            data.end()

    async def work() -> None:
        try:
            for number in range(2 * count):
                await connection.send(number, request.ports[number // 2].to_bytes(2, "little"))
        except ClientGone:
            return
        async with asyncio.TaskGroup() as group:
            for index, port in enumerate(request.ports):
                group.create_task(forward(index, port))

    await run_session(transport, connection, work(), timeouts.idle)
