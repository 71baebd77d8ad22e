"""The session of one connection: requests one after the other, and their answers.

A route returns a value (:mod:`jaula.api.http.response`), and this module writes it. The answer to
a request that changes something waits until the engine's records are on the disk: a power failure
takes no change that was acknowledged. Reads do not wait for the changes of others.

Errors of the engine become Docker's error document with the status of the error. An unexpected
exception becomes a 500 with one line; its traceback goes to the log, never to a client. A full or
read-only disk is a 503 with the remedy, wherever it was noticed.

Attach and exec take the connection out of HTTP. Source: 'Attach to a container, Hijacking' of the
Engine API. A client that sends ``Upgrade: tcp`` gets 101, an older one 200; after the head both
directions are raw bytes.

Facts about taking a socket out of asyncio: ``pause_reading`` leaves the selector at once. Later
bytes are either in the parser (they are passed on as early bytes) or still in the kernel. A
duplicate of the descriptor shares the file status flags, so it is non-blocking until its owner
changes that. ``transport.abort`` closes its own descriptor only. A ``shutdown`` would end the
stream for every duplicate.

Docker's SDK for Python reads the head through a buffer and the stream past it, and loses what
arrives together with the head. For this client the stream begins after it has read the head.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import logging
import os
import struct
import termios
import time
from asyncio import Transport
from collections.abc import Iterable
from typing import TYPE_CHECKING

import h11

from jaula import metrics, request_context, spans
from jaula.api.http.http_errors import BadHeader, Busy, Disconnected
from jaula.api.http.http_protocol import MAX_HEAD, HttpProtocol, Phase
from jaula.api.http.http_request import Handler, Limits, Query, Request, unquote
from jaula.api.http.response import (
    Answer,
    DelegatedResponse,
    HijackResponse,
    Response,
    StreamResponse,
    close,
    error_response,
)
from jaula.api.http.router import HEADERS, MAXIMUM, Router, check_version, parse_version
from jaula.errors import JaulaError, resource_error, system_error_text
from jaula.request_context import RequestContext

if TYPE_CHECKING:
    from jaula.engine.authz.gateway import EngineApi

BATCH = 64 * 1024  # bytes of a stream that are sent as one chunk at most
WEB_USER = b"jaula-web-user"
BUFFERED_CLIENT = b"docker-sdk-python"
_HEAD_POLLS, _POLL_INTERVAL = 100, 0.001  # polls of the send queue, and seconds between them

_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"})
_READS = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_ENDS = frozenset(
    {
        (b"POST", "/containers/{id}/stop"),
        (b"POST", "/containers/{id}/kill"),
        (b"DELETE", "/containers/{id}"),
    }
)
"""Requests that end a container."""
_END_TIMEOUT = 10.0  # seconds that these wait for the disk
_UNKNOWN = "none"  # the route of a request that has none
_numbers = itertools.count(1)  # of requests in this engine

_BODILESS = frozenset({204, 304})
# Source: RFC 9110, 15. SDKs print these texts in their errors.
_REASONS = {
    200: b"OK",
    201: b"Created",
    204: b"No Content",
    304: b"Not Modified",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
}

_log = logging.getLogger("jaula.api")


class HttpSession:
    """The task of one connection."""

    def __init__(
        self,
        connection: HttpProtocol,
        router: Router,
        engine: EngineApi,
        limits: Limits,
        *,
        busy: bool = False,
    ) -> None:
        """Serve a connection. If ``busy``, the first request is answered with an error."""
        self._connection = connection
        self._limits = limits
        self._busy = busy
        self._parser = connection.parser
        self._router = router
        self._engine = self._own_engine = engine
        self._method = b""
        self._template = ""  # of the request's route

    async def run(self) -> None:
        """Serve requests until either side ends the connection."""
        connection = self._connection
        try:
            while not connection.last:
                try:
                    event = await connection.event()
                except h11.RemoteProtocolError as exc:
                    raise BadHeader(f"bad request: {exc}", exc.error_status_hint) from None
                if not isinstance(event, h11.Request):
                    break  # the client closed
                _check_head(event)
                connection.begin_work()
                self._method = event.method
                self._choose_caller(event)
                self._check_access(event)
                if not await self._exchange(event):
                    break
                connection.next_request()
        except Disconnected:
            pass
        except JaulaError as error:
            await self._reject(error)
        finally:
            if connection.phase is not Phase.GONE:
                connection.transport.close()

    def _choose_caller(self, request: h11.Request) -> None:
        """Serve the user whom the web view names, for this request only.

        :raises NotAuthorized: when the caller may not speak for that user.
        :raises InvalidRequest: when the header is not valid.
        """
        self._engine = self._own_engine
        for name, value in request.headers:
            if name == WEB_USER:
                self._engine = self._own_engine.act_for(value.decode("latin-1"))

    def _check_access(self, request: h11.Request) -> None:
        """Check what is decided before the body is read, for each request: a policy may change.

        :raises Busy: when there are too many connections.
        :raises NotAuthorized: when the caller may not use the engine.
        """
        if self._busy:
            raise Busy("too many connections are open")
        self._engine.access.require_access(_title(request))

    async def _reject(self, error: JaulaError) -> None:
        """Answer without reading a body, if an answer is possible; end the connection."""
        self._connection.last = True
        if self._parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            try:
                await self._send(error_response(error.status, str(error)))
            except Disconnected:
                return

    async def _exchange(self, request: h11.Request) -> bool:
        """Answer one request; return whether the connection can be used again."""
        target = request.target.decode("ascii")
        started = time.perf_counter()
        request_context.current.set(
            RequestContext(
                f"{next(_numbers):x}",
                self._engine.access.caller,
                _title(request),
                self._connection.is_gone,
            )
        )
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("calling %s", _title(request))
        try:
            routed, handler = self._route(request, target)
        except Exception as exc:  # noqa: BLE001 - every exception becomes an answer here
            answer = _error_answer(exc, target)
            self._count(request, _UNKNOWN, answer, started)
            return await self._answer(answer, request, target)
        route = self._template = self._router.template(handler)
        with self._span(request, route) as span:
            try:
                try:
                    answer = await handler(routed)
                    if not isinstance(answer, StreamResponse):
                        await self._sync()
                except Disconnected:
                    raise
                except Exception as exc:  # noqa: BLE001 - as above
                    answer = _error_answer(exc, target)
                span.set("http.response.status_code", _status(answer))
                self._count(request, route, answer, started)
                routed.forget_body()
                return await self._answer(answer, request, target)
            finally:
                routed.end()

    async def _sync(self) -> None:
        """Wait until what the request has changed is on the disk.

        A read has changed nothing and does not wait. What ends a container is done already, and no
        disk keeps it from being answered.

        :raises Unavailable: when the disk does not take it.
        """
        if self._method in _READS:
            return
        if (self._method, self._template) not in _ENDS:
            await self._engine.sync()
            return
        try:
            async with asyncio.timeout(_END_TIMEOUT):
                await self._engine.sync()
        except (JaulaError, TimeoutError) as error:
            request = f"{self._method.decode()} {self._template}"
            _log.warning("%s is not on the disk yet: %s", request, error or "no answer")

    def _span(self, request: h11.Request, route: str) -> spans.Span | spans.NoSpan:
        """Return the span of a request, which ends with its answer."""
        if not spans.enabled():
            return spans.NO_SPAN
        method = request.method.decode("ascii")
        return spans.request_span(
            f"{method} {route}",
            dict(request.headers),
            {
                "http.request.method": method,
                "http.route": route,
                "url.path": request.target.decode("ascii").partition("?")[0],
                "user.id": self._engine.access.caller,
            },
        )

    def _count(self, request: h11.Request, route: str, answer: Answer, started: float) -> None:
        """Count an answer that is known; a stream ends later."""
        method = request.method.decode("ascii")
        method = method if method in _METHODS else "other"
        metrics.REQUESTS.add(method, route, str(_status(answer)))
        metrics.REQUEST_DURATIONS.observe(time.perf_counter() - started, route)

    async def _answer(self, answer: Answer, request: h11.Request, target: str) -> bool:
        """Send an answer; return whether the connection can be used again."""
        connection = self._connection
        if isinstance(answer, HijackResponse):
            if await connection.discard():
                await self._hijack(answer, request.headers)
            return False
        if isinstance(answer, DelegatedResponse):
            if not await connection.discard():
                return False
            try:
                await self._delegate(answer, request)
                return False
            except Disconnected:
                raise
            except Exception as exc:  # noqa: BLE001 - every exception becomes an answer here
                answer = _error_answer(exc, target)
                if self._parser.our_state is not h11.SEND_RESPONSE:
                    return False
        if isinstance(answer, StreamResponse):
            try:
                await self._stream(answer)
            except Disconnected:
                raise
            except Exception as exc:  # noqa: BLE001 - as above
                answer = _error_answer(exc, target)
                if self._parser.our_state is not h11.SEND_RESPONSE:
                    connection.transport.abort()  # cut: the client sees an incomplete body
                    return False
        if isinstance(answer, Response):
            await self._send(answer)
        if self._parser.our_state not in (h11.DONE, h11.MUST_CLOSE):
            return False
        read = await connection.discard()
        return read and self._parser.our_state is h11.DONE and not connection.last

    def _route(self, request: h11.Request, target: str) -> tuple[Request, Handler]:
        """Return the request as a route reads it, and the handler.

        :raises InvalidRequest: when the version is not supported or the query is malformed.
        :raises PageNotFound: when no route matches.
        """
        raw_path, _, raw_query = target.partition("?")
        path = unquote(raw_path)
        if not path.startswith("/"):  # absolute form: http://host/path
            _, _, path = path.partition("://")
            path = path[path.find("/") :] if "/" in path else "/"
        version = MAXIMUM
        first, slash, rest = path[1:].partition("/")
        requested = parse_version(first)
        if requested is not None:
            check_version(requested)
            version, path = requested, slash + rest
        handler, name = self._router.find(request.method.decode("ascii"), path)
        routed = Request(
            engine=self._engine,
            name=name,
            query=Query(raw_query),
            headers=dict(request.headers),
            version=version,
            title=_title(request),
            chunks=self._connection.body,
            limits=self._limits,
            peer=self._connection.peer,
        )
        return routed, handler

    # -- answers ----------------------------------------------------------------------------------

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> h11.Response:
        if self._connection.last or self._parser.they_are_waiting_for_100_continue:
            headers.append((b"Connection", b"close"))
        headers += HEADERS
        return h11.Response(status_code=status, headers=headers, reason=_REASONS.get(status, b""))

    async def _send(self, answer: Response) -> None:
        headers = list(answer.headers)
        if answer.content_type is not None:
            headers.append((b"Content-Type", answer.content_type))
        if answer.status not in _BODILESS:
            headers.append((b"Content-Length", b"%d" % len(answer.body)))
        head = self._head(answer.status, headers)
        if answer.body and self._method != b"HEAD":
            self._connection.write(head, h11.Data(data=answer.body), h11.EndOfMessage())
        else:
            self._connection.write(head, h11.EndOfMessage())
        await self._connection.drain()

    async def _stream(self, answer: StreamResponse) -> None:
        """Send the chunks of a stream and close it. Small chunks are sent together."""
        connection = self._connection
        chunks = answer.chunks
        batch = _Batch(connection)
        connection.begin_stream()
        try:
            if not answer.at_once:
                async for chunk in chunks:
                    await self._sync()
                    batch.add(chunk)
                    break
            headers = [*answer.headers, (b"Content-Type", answer.content_type)]
            connection.write(self._head(200, headers))
            batch.schedule()
            try:
                async for chunk in chunks:
                    await self._sync()
                    batch.add(chunk)
                    if batch.size >= BATCH:
                        batch.flush()
                        await asyncio.sleep(0)  # other tasks get their turn
                    else:
                        batch.schedule()
                    await connection.drain()
                await self._sync()  # the end of a stream reports success
            except Exception as exc:  # it is too late for a status
                if answer.error_chunk is None or isinstance(exc, Disconnected):
                    raise
                batch.add(answer.error_chunk(_as_error(exc, "in a stream")))
            batch.flush()
            connection.write(h11.EndOfMessage())
            await connection.drain()
        finally:
            batch.cancel()
            connection.end_stream()
            await close(chunks)

    async def _delegate(self, answer: DelegatedResponse, request: h11.Request) -> None:
        """Keep the connection until another process has sent the body.

        :raises JaulaError: when it has not begun; the answer is an error then.
        """
        connection, transport = self._connection, self._connection.transport
        begun = whole = False

        async def begin() -> None:
            nonlocal begun
            begun = True
            connection.write(self._head(200, [(b"Content-Type", answer.content_type)]))
            await connection.drain()  # the head is sent before the other process writes

        connection.last = True
        transport.set_write_buffer_limits(high=0)
        connection.begin_stream()
        try:
            client = duplicate_socket(transport)
            whole = await answer.send(client, request.http_version >= b"1.1", begin)
        finally:
            connection.end_stream()
            if begun and not whole:
                transport.abort()  # cut: the client sees an incomplete body

    async def _hijack(self, answer: HijackResponse, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Hand the connection over to ``answer.take``; abort the transport without a shutdown."""
        connection = self._connection
        transport = connection.transport
        connection.pause_reading()
        early, _ = self._parser.trailing_data
        transport.set_write_buffer_limits(high=0)
        await connection.drain()
        head = answer.head
        if head is None:
            head = hijack_head(answer.content_type, upgrade=_upgrades(headers))
        transport.write(head)
        await connection.drain()  # the head is sent before the new owner writes
        descriptor = duplicate_socket(transport)
        connection.phase = Phase.GONE
        connection.cancel_at_finish = answer.until_close
        last_chunk = b""
        request_context.forget_client()  # the connection is the new owner's
        try:
            if buffers_head(headers):
                await wait_until_read(descriptor)
            await answer.take(descriptor, early)
        except Exception as exc:  # noqa: BLE001 - it is too late for a status
            last_chunk = answer.error_chunk(_as_error(exc, "a hijacked stream"))
        finally:
            if last_chunk and not transport.is_closing():
                os.set_blocking(transport.get_extra_info("socket").fileno(), False)
                transport.write(last_chunk)
                transport.close()
            else:
                transport.abort()


def _status(answer: Answer) -> int:
    """Return the status of an answer; that of a stream is the one of its head."""
    if isinstance(answer, Response):
        return answer.status
    return 101 if isinstance(answer, HijackResponse) else 200


class _Batch:
    """Chunks that are ready in one turn of the event loop, sent together at its end."""

    def __init__(self, connection: HttpProtocol) -> None:
        self._connection = connection
        self._chunks: list[bytes] = []
        self._handle: asyncio.Handle | None = None
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.size += len(chunk)

    def schedule(self) -> None:
        if self._handle is None and self._chunks:
            self._handle = self._connection.loop.call_soon(self._end_of_turn)

    def _end_of_turn(self) -> None:
        if self._connection.phase is not Phase.GONE:
            self.flush()

    def flush(self) -> None:
        self.cancel()
        if self.size:
            self._connection.write(h11.Data(data=b"".join(self._chunks)))
        self._chunks.clear()
        self.size = 0

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


def _check_head(request: h11.Request) -> None:
    """Limit a head that arrived at once; the limit of the parser is for incomplete ones.

    Two lengths of one body are rejected (RFC 9112 section 6.3): a proxy could see another request
    in the same bytes.

    :raises BadHeader: when the head is too large or has two lengths.
    """
    size = len(request.target)
    lengths = set()
    for name, value in request.headers:
        size += len(name) + len(value) + 4
        if name in (b"content-length", b"transfer-encoding"):
            lengths.add(name)
    if len(lengths) > 1:
        raise BadHeader("the request has both Content-Length and Transfer-Encoding", 400)
    if size > MAX_HEAD:
        raise BadHeader(f"the head of the request is larger than {MAX_HEAD} bytes", 431)


def _title(request: h11.Request) -> str:
    """Return the method and the path of a request, for the audit log."""
    path, _, _ = request.target.decode("ascii").partition("?")
    return f"{request.method.decode('ascii')} {path}"


def _error_answer(exc: Exception, target: str) -> Answer:
    error = _as_error(exc, target)
    return error_response(error.status, str(error))


def _as_error(exc: Exception, target: str) -> JaulaError:
    """Return an exception as an error of one line; log an unexpected one with its traceback."""
    if isinstance(exc, JaulaError):
        return exc
    file = exc.filename if isinstance(exc, OSError) else None
    unavailable = resource_error(
        exc, f"the request failed at {file}" if file else "the request failed"
    )
    if unavailable is not None:
        _log.warning("%s: %s", target, unavailable)
        return unavailable
    _log.error("unexpected error while answering %s", target, exc_info=exc)
    if isinstance(exc, OSError):
        return JaulaError(system_error_text(f"internal error while answering {target[:200]}", exc))
    return JaulaError(f"internal error ({type(exc).__name__}), see the log of the engine")


# -- hijacking ---------------------------------------------------------------------------------


def _upgrades(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether the client asks to switch protocols."""
    return any(name == b"upgrade" for name, _ in headers)


def hijack_head(content_type: bytes, *, upgrade: bool) -> bytes:
    """Return the head that ends HTTP on the connection."""
    if upgrade:
        lines = [b"HTTP/1.1 101 UPGRADED", b"Content-Type: " + content_type]
        lines += [b"Connection: Upgrade", b"Upgrade: tcp"]
    else:
        lines = [b"HTTP/1.1 200 OK", b"Content-Type: application/vnd.docker.raw-stream"]
    lines += [name + b": " + value for name, value in HEADERS]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def duplicate_socket(transport: Transport) -> int:
    """Return a duplicate of the transport's socket; one process at a time may read and write."""
    return os.dup(transport.get_extra_info("socket").fileno())


def buffers_head(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether the client loses bytes that arrive together with the head."""
    return any(
        name == b"user-agent" and value.startswith(BUFFERED_CLIENT) for name, value in headers
    )


async def wait_until_read(descriptor: int) -> bool:
    """Wait up to 0.1 seconds until the peer of a unix socket has read everything; return whether.

    Source: unix(7) and tty_ioctl(2), TIOCOUTQ: the number of bytes that the peer has not read yet.
    """
    for _ in range(_HEAD_POLLS):
        queued = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))[0]
        if not queued:
            return True
        await asyncio.sleep(_POLL_INTERVAL)
    return False
