"""What is said on one connection: requests, one after the other, and their answers.

A route returns a value (:mod:`jaula.api.http.response`); this module writes it. Errors of the engine become
Docker's error document with the error's status; anything unexpected becomes a 500 with one line,
and its traceback goes to the log, never to a client.
"""

from __future__ import annotations

import asyncio
import logging
import os

import h11

from jaula.api import version
from jaula.api.backend import Backend
from jaula.api.http import hijack
from jaula.api.http.errors import BadHeader, Disconnected, TooSlow
from jaula.api.http.json_stream import close
from jaula.api.http.protocol import MAX_HEAD, HttpProtocol, Phase
from jaula.api.http.query import Query, unquote
from jaula.api.http.request import Handler, Request
from jaula.api.http.response import Answer, HijackResponse, Response, StreamResponse, error
from jaula.api.router import Router
from jaula.errors import JaulaError

BATCH = 64 * 1024  # bytes of a stream that go out as one chunk at most

_BODILESS = frozenset({204, 304})
# Source: RFC 9110, 15. SDKs show these words in their errors.
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

    def __init__(self, connection: HttpProtocol, router: Router, engine: Backend) -> None:
        self._connection = connection
        self._parser = connection.parser
        self._router = router
        self._engine = engine
        self._method = b""

    async def run(self) -> None:
        """Serve until either side ends the connection."""
        connection = self._connection
        try:
            while not connection.last:
                try:
                    event = await connection.event()
                except h11.RemoteProtocolError as problem:
                    raise BadHeader(f"bad request: {problem}", problem.error_status_hint) from None
                if not isinstance(event, h11.Request):
                    break  # the client closed
                _check_head(event)
                connection.working()
                if not await self._exchange(event):
                    break
                connection.next_request()
        except Disconnected:
            pass
        except (BadHeader, TooSlow) as problem:
            await self._refuse(problem)
        finally:
            if connection.phase is not Phase.GONE:
                connection.transport.close()

    async def _refuse(self, problem: JaulaError) -> None:
        """Answer what is not a request, if an answer is possible, and end the connection."""
        self._connection.last = True
        if self._parser.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            try:
                await self._reply(error(problem.status, str(problem)))
            except Disconnected:
                return

    async def _exchange(self, request: h11.Request) -> bool:
        """Answer one request; True where the connection can be used again."""
        connection = self._connection
        target = request.target.decode("ascii")
        self._method = request.method
        upgrade = False
        try:
            call, handler = self._call(request, target)
            upgrade = call.upgrade
            answer = await handler(call)
        except Disconnected:
            raise
        except Exception as problem:  # noqa: BLE001 - the border: everything becomes an answer
            answer = _answer(problem, target)
        if isinstance(answer, HijackResponse):
            if await connection.discard():
                await self._hijack(answer, upgrade, hijack.buffers_the_head(request.headers))
            return False
        if isinstance(answer, StreamResponse):
            try:
                await self._stream(answer)
            except Disconnected:
                raise
            except Exception as problem:  # noqa: BLE001 - the same border
                answer = _answer(problem, target)
                if self._parser.our_state is not h11.SEND_RESPONSE:
                    connection.transport.abort()  # cut: the client sees an incomplete body
                    return False
        if isinstance(answer, Response):
            await self._reply(answer)
        if self._parser.our_state not in (h11.DONE, h11.MUST_CLOSE):
            return False
        read = await connection.discard()
        return read and self._parser.our_state is h11.DONE and not connection.last

    def _call(self, request: h11.Request, target: str) -> tuple[Request, Handler]:
        """The request as a route reads it; raises for a path or version that is not served."""
        raw_path, _, raw_query = target.partition("?")
        path = unquote(raw_path)
        if not path.startswith("/"):  # absolute form: http://host/path
            _, _, path = path.partition("://")
            path = path[path.find("/") :] if "/" in path else "/"
        spoken = version.MAXIMUM
        first, slash, rest = path[1:].partition("/")
        asked = version.parse(first)
        if asked is not None:
            version.check(asked)
            spoken, path = asked, slash + rest
        handler, name = self._router.find(request.method.decode("ascii"), path)
        call = Request(
            engine=self._engine,
            name=name,
            query=Query(raw_query),
            headers=dict(request.headers),
            version=spoken,
            body=self._connection.body,
            peer=self._connection.peer,
        )
        return call, handler

    # -- answers ----------------------------------------------------------------------------------

    def _head(self, status: int, headers: list[tuple[bytes, bytes]]) -> h11.Response:
        if self._connection.last or self._parser.they_are_waiting_for_100_continue:
            headers.append((b"Connection", b"close"))
        headers += version.HEADERS
        return h11.Response(status_code=status, headers=headers, reason=_REASONS.get(status, b""))

    async def _reply(self, answer: Response) -> None:
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
        """Send a stream's chunks, small ones that are ready together as one; close it always."""
        connection = self._connection
        chunks = answer.chunks
        batch = _Batch(connection)
        connection.streaming()
        try:
            if not answer.at_once:
                async for chunk in chunks:
                    batch.add(chunk)
                    break
            headers = [*answer.headers, (b"Content-Type", answer.content_type)]
            connection.write(self._head(200, headers))
            batch.schedule()
            try:
                async for chunk in chunks:
                    batch.add(chunk)
                    if batch.size >= BATCH:
                        batch.flush()
                        await asyncio.sleep(0)  # a long ready stream leaves room for others
                    else:
                        batch.schedule()
                    await connection.drain()
            except Exception as problem:  # the border; there is no status any more
                if answer.last_words is None or isinstance(problem, Disconnected):
                    raise
                batch.add(answer.last_words(_refusal(problem, "in a stream")))
            batch.flush()
            connection.write(h11.EndOfMessage())
            await connection.drain()
        finally:
            batch.cancel()
            connection.settled()
            await close(chunks)

    async def _hijack(self, answer: HijackResponse, upgrade: bool, buffers: bool) -> None:
        """Hand the connection to ``answer.take``; the transport is dropped, not shut down."""
        connection = self._connection
        transport = connection.transport
        connection.pause_reading()
        early, _ = self._parser.trailing_data
        transport.set_write_buffer_limits(high=0)
        await connection.drain()
        transport.write(answer.head or hijack.head(answer.content_type, upgrade=upgrade))
        await connection.drain()  # the head is out before anybody else writes
        descriptor = hijack.duplicate(transport)
        connection.phase = Phase.GONE
        last_words = b""
        try:
            if buffers:
                await hijack.head_taken(descriptor)
            await answer.take(descriptor, early)
        except Exception as problem:  # noqa: BLE001 - the border; there is no status any more
            last_words = answer.last_words(_refusal(problem, "a hijacked stream"))
        finally:
            if last_words and not transport.is_closing():
                os.set_blocking(transport.get_extra_info("socket").fileno(), False)
                transport.write(last_words)
                transport.close()
            else:
                transport.abort()


class _Batch:
    """Chunks that became ready in one turn of the event loop, sent together at its end."""

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
    """The ceiling for heads that came in one piece; the parser's is for incomplete ones.

    Two lengths of one body are refused (RFC 9112 section 6.3): another reader of the same bytes
    could find another request in them.
    """
    size = len(request.target)
    lengths = set()
    for name, value in request.headers:
        size += len(name) + len(value) + 4
        if name in (b"content-length", b"transfer-encoding"):
            lengths.add(name)
    if len(lengths) > 1:
        raise BadHeader("both Content-Length and Transfer-Encoding are given", 400)
    if size > MAX_HEAD:
        raise BadHeader(f"the head of the request is larger than {MAX_HEAD} bytes", 431)


def _answer(problem: Exception, target: str) -> Answer:
    refusal = _refusal(problem, target)
    return error(refusal.status, str(refusal))


def _refusal(problem: Exception, target: str) -> JaulaError:
    """A defect or a failure of the host as one line for the client, the whole for the log."""
    if isinstance(problem, JaulaError):
        return problem
    _log.error("unexpected error while answering %s", target, exc_info=problem)
    if isinstance(problem, OSError):
        return JaulaError(f"internal error: {problem}")
    return JaulaError(f"internal error ({type(problem).__name__}), see the log of the engine")
