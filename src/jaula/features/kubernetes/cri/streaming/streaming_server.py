"""The HTTP server of streams.

Sources: ``k8s.io/cri-streaming``, package streaming; ``k8s.io/streaming``, package httpstream, for
the negotiation of protocols; RFC 6455 for that of WebSockets.

A URL has a random token, which stands for one request of CRI. It is valid once and for a minute.
The token is the only authentication, as in other runtimes: the kubelet, which has checked its
client, connects without any other.

A connection has one HTTP request. Each answer but 101 closes the connection.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from ssl import SSLContext
from typing import NamedTuple

import h11

from jaula.errors import InvalidRequest, JaulaError, NotFound, TooManyRequests, Unavailable
from jaula.features.kubernetes.cri.streaming import portforward, remotecommand, spdy
from jaula.features.kubernetes.cri.streaming.backend import (
    AttachRequest,
    Backend,
    ClientGone,
    ExecRequest,
    PortForwardRequest,
    Request,
)
from jaula.features.kubernetes.cri.streaming.streaming_transport import SocketTransport, Timeouts
from jaula.spec.websocket_accept import accept_token
from jaula.tasks import BackgroundTasks

TOKEN_SIZE = 16  # random bytes
TOKEN_SECONDS = 60.0  # from the answer of CRI to the connection of the client
MAX_REQUESTS = 1000  # tokens that are not used yet
MAX_HEAD = 1 << 14  # bytes of the head of a request
HEAD_SECONDS = 10.0  # for the TLS handshake and the head
MAX_WAITING = 128  # connections whose head is incomplete
MAX_SESSIONS = 1024  # upgraded connections
BACKLOG = 128  # connections
_ACCEPT_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 2.0  # for a client to read an error

_REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
_KINDS = {ExecRequest: "exec", AttachRequest: "attach", PortForwardRequest: "portforward"}

_log = logging.getLogger("jaula.features.kubernetes.cri")


class CachedRequest(NamedTuple):
    """A request, and the engine as its caller may use it."""

    request: Request
    backend: Backend


class RequestCache:
    """The requests that tokens stand for. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Oldest first, with their expiry.
        self._requests: dict[str, tuple[CachedRequest, float]] = {}

    def insert(self, cached: CachedRequest) -> str:
        """Return a new token for a request.

        :raises TooManyRequests: when there are too many unused tokens.
        """
        now = self._clock()
        while self._requests:
            token, (_, expiry) = next(iter(self._requests.items()))
            if expiry > now:
                break
            del self._requests[token]
        if len(self._requests) >= MAX_REQUESTS:
            raise TooManyRequests("maximum number of in-flight requests exceeded")
        token = secrets.token_urlsafe(TOKEN_SIZE)
        self._requests[token] = cached, now + TOKEN_SECONDS
        return token

    def consume(self, token: str) -> CachedRequest | None:
        """Return the request of a token, which is not valid any more, or None."""
        cached, expiry = self._requests.pop(token, (None, 0.0))
        return cached if expiry > self._clock() else None


# -- the head of a request ---------------------------------------------------------------------


class HttpError(JaulaError):
    """An answer other than 101; ``headers`` are added to it."""

    def __init__(
        self, message: str, status: int, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = tuple(headers)


class Head(NamedTuple):
    """The head of a request; names of headers are in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """Return the elements of a header that is a list, of all its lines."""
        lines = [value for header, value in self.headers if header == name]
        return [text for line in lines for part in line.split(",") if (text := part.strip())]

    def value(self, name: str) -> str:
        """Return the first line of a header, '' if it is absent."""
        return next((value for header, value in self.headers if header == name), "")


class Upgrade(NamedTuple):
    """The agreed protocol and the headers of the answer."""

    websocket: bool
    protocol: str
    headers: tuple[tuple[bytes, bytes], ...]


def parse_path(path: str) -> tuple[str, str]:
    """Return the kind of the request and the token of ``/KIND/TOKEN``; the query is ignored.

    :raises NotFound: when the path is not one of the server.
    """
    parts = path.partition("?")[0].split("/")
    if len(parts) != 3 or parts[0] or parts[1] not in _KINDS.values():
        raise NotFound("the path is not that of an exec, attach or portforward request")
    return parts[1], parts[2]


def plan_upgrade(head: Head, request: Request) -> Upgrade:
    """Return the upgrade that the client asks for. Pure.

    :raises HttpError: when the client asks for none, or for protocols that are not supported.
    """
    protocols = portforward if isinstance(request, PortForwardRequest) else remotecommand
    offers = [value.lower() for value in head.values("upgrade")]
    if not any("upgrade" in value.lower() for value in head.values("connection")):
        offers = []
    if "websocket" in offers:
        return _plan_websocket(head, request, protocols.WEBSOCKET_PROTOCOLS)
    offered = head.values("x-stream-protocol-version")
    if not offered:
        raise HttpError("unable to upgrade: no X-Stream-Protocol-Version in the request", 400)
    accepted: Sequence[str] = protocols.SPDY_PROTOCOLS
    protocol = _negotiate(offered, accepted)
    if protocol is None:
        names = [(b"X-Accepted-Stream-Protocol-Versions", name.encode()) for name in accepted]
        raise HttpError(_no_common(offered, accepted), 403, names)
    if spdy.PROTOCOL.lower() not in offers:
        raise HttpError(f"unable to upgrade: no Upgrade to {spdy.PROTOCOL} in the request", 400)
    headers = [
        (b"Connection", b"Upgrade"),
        (b"Upgrade", spdy.PROTOCOL.encode()),
        (b"X-Stream-Protocol-Version", protocol.encode()),
    ]
    return Upgrade(False, protocol, tuple(headers))


def _plan_websocket(head: Head, request: Request, accepted: Sequence[str]) -> Upgrade:

    if head.method != "GET":
        raise HttpError("unable to upgrade: a WebSocket needs the method GET", 405)
    if head.value("sec-websocket-version") != "13":
        version = (b"Sec-WebSocket-Version", b"13")
        raise HttpError("unable to upgrade: Sec-WebSocket-Version must be 13", 400, (version,))
    token = accept_token(head.value("sec-websocket-key"))
    offered = head.values("sec-websocket-protocol")
    protocol = _negotiate(offered, accepted) if offered else ""
    if protocol is None:
        raise HttpError(_no_common(offered, accepted), 403)
    channels = isinstance(request, PortForwardRequest) and protocol != portforward.TUNNEL
    if channels and not request.ports:  # type: ignore[union-attr]
        raise HttpError("unable to upgrade: the request has no ports for the channels", 400)
    headers = [
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
        (b"Sec-WebSocket-Accept", token),
    ]
    if protocol:
        headers.append((b"Sec-WebSocket-Protocol", protocol.encode()))
    return Upgrade(True, protocol, tuple(headers))


def _negotiate(offered: Sequence[str], accepted: Sequence[str]) -> str | None:
    """Return the first protocol of the client that the server has."""
    return next((protocol for protocol in offered if protocol in accepted), None)


def _no_common(offered: Sequence[str], accepted: Sequence[str]) -> str:
    client, server = ", ".join(offered)[:200], ", ".join(accepted)
    return f"unable to negotiate protocol: client supports {client}; server accepts {server}"


# -- the server --------------------------------------------------------------------------------


class StreamServer:
    """Serves the streams of the requests for which URLs were given."""

    def __init__(
        self,
        *,
        tls: SSLContext | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - it is immutable
    ) -> None:
        self._tls = tls
        self._timeouts = timeouts
        self._cache = RequestCache()
        self._tasks = BackgroundTasks(_log, "a stream failed")
        self._waiting: dict[asyncio.Task[None], None] = {}  # without a head; oldest first
        self._sessions = 0
        self._sock: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._base = ""

    def listen(self, sock: socket.socket, base_url: str = "") -> None:
        """Accept on a bound TCP socket, which the server owns from now on, on the running loop.

        ``base_url`` is the beginning of all URLs, as in ``https://node:1234``. By default it has
        the address of the socket.

        :raises InvalidRequest: when the socket has no address that clients can connect to.
        """
        host, port = sock.getsockname()[:2]
        if not base_url:
            if host in ("0.0.0.0", "::"):
                raise InvalidRequest(f"streams on {host} need the base URL for clients")
            name = f"[{host}]" if ":" in host else host
            base_url = f"{'https' if self._tls else 'http'}://{name}:{port}"
        self._base = base_url.rstrip("/")
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._sock = sock
        self._accepting = asyncio.get_running_loop().create_task(self._accept(sock))

    def get_url(self, request: Request, backend: Backend) -> str:
        """Return the URL at which a client gets the streams of a request, once.

        ``backend`` carries the request out, as the caller who asked for the URL.

        :raises TooManyRequests: when there are too many URLs that no client has used.
        """
        token = self._cache.insert(CachedRequest(request, backend))
        return f"{self._base}/{_KINDS[type(request)]}/{token}"

    async def close(self) -> None:
        """Stop listening and end all sessions."""
        if self._accepting is not None and self._sock is not None:
            self._accepting.cancel()
            await asyncio.wait((self._accepting,))
            self._sock.close()
        await self._tasks.close()

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(sock)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                _log.warning("cannot accept on %s: %s", sock.getsockname(), error)
                await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
                continue
            if len(self._waiting) >= MAX_WAITING:  # an honest client needs milliseconds
                oldest = next(iter(self._waiting))
                del self._waiting[oldest]
                oldest.cancel()
            task = self._tasks.spawn(self._serve(client))
            self._waiting[task] = None
            task.add_done_callback(lambda task: self._waiting.pop(task, None))

    async def _serve(self, client: socket.socket) -> None:
        """Serve a client from its handshake to the end of its session."""
        transport = None
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                transport = await SocketTransport.accept(client, self._tls)
                upgraded = await self._upgrade(transport)
        except (TimeoutError, ClientGone, OSError) as error:
            _log.debug("a client was closed before its session: %s", error)
            upgraded = None
        except BaseException:
            if transport is None:
                client.close()
            else:
                transport.close()
            raise
        if transport is None:
            client.close()
        elif upgraded is None:
            transport.close()
        else:
            self._sessions += 1
            try:
                self._waiting.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
                await self._session(transport, *upgraded)
            finally:
                self._sessions -= 1
                transport.close()

    async def _upgrade(self, transport: SocketTransport) -> tuple[CachedRequest, Upgrade] | None:
        """Read the head and answer it; return the upgrade, or None after an error.

        :raises ClientGone: when the client is gone.
        """
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            head = await _read_head(transport, parser)
            cached = self._find(head)
            upgrade = plan_upgrade(head, cached.request)
            if self._sessions >= MAX_SESSIONS:
                raise Unavailable(f"{MAX_SESSIONS} sessions are open")
        except JaulaError as error:
            await _send_error(transport, parser, error)
            return None
        answer = h11.InformationalResponse(
            status_code=101, headers=list(upgrade.headers), reason=b"Switching Protocols"
        )
        transport.write(parser.send(answer) or b"")
        transport.unread(parser.trailing_data[0])
        return cached, upgrade

    def _find(self, head: Head) -> CachedRequest:
        """Return the request of the token, which is used up.

        :raises NotFound: when there is none.
        """
        kind, token = parse_path(head.path)
        if head.method not in ("GET", "POST"):
            raise HttpError("the method must be one of GET and POST", 405)
        cached = self._cache.consume(token)
        if cached is None or _KINDS[type(cached.request)] != kind:
            raise NotFound("the URL is not valid; it can be used once, within a minute")
        return cached

    async def _session(
        self, transport: SocketTransport, cached: CachedRequest, upgrade: Upgrade
    ) -> None:
        request, args = cached.request, (upgrade.protocol, cached.backend, self._timeouts)
        if isinstance(request, PortForwardRequest):
            if upgrade.websocket:
                await portforward.serve_websocket(transport, request, *args)
            else:
                await portforward.serve_spdy(transport, request, *args)
        elif upgrade.websocket:
            await remotecommand.serve_websocket(transport, request, *args)
        else:
            await remotecommand.serve_spdy(transport, request, *args)


async def _read_head(transport: SocketTransport, parser: h11.Connection) -> Head:
    """Return the head of the request, which must not have a body.

    :raises HttpError: when the bytes are not such a request.
    :raises ClientGone: when the client is gone.
    """
    head = None
    try:
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                data = await transport.read()
                if not data:
                    raise ClientGone("the client is gone")
                parser.receive_data(data)
            elif isinstance(event, h11.Request):
                head = _decode_head(event)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return head
            else:
                raise HttpError("the request has a body", 400)
    except h11.RemoteProtocolError as error:
        raise HttpError(f"bad request: {error}", error.error_status_hint) from None


def _decode_head(event: h11.Request) -> Head:
    """Return the head that the parser has found.

    :raises HttpError: when it is too large. The parser's limit is for incomplete ones.
    """
    size = len(event.target) + sum(len(n) + len(v) + 4 for n, v in event.headers)
    if size > MAX_HEAD:
        raise HttpError(f"the head of the request is larger than {MAX_HEAD} bytes", 431)
    headers = ((n.decode("latin-1"), v.decode("latin-1")) for n, v in event.headers)
    method, target = event.method.decode("latin-1"), event.target.decode("latin-1")
    return Head(method, target, tuple(headers))


async def _send_error(
    transport: SocketTransport, parser: h11.Connection, error: JaulaError
) -> None:
    """Answer with an error, and wait until the client has closed.

    :raises ClientGone: when the client is gone.
    """
    if parser.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    body = f"{error}\n".encode()
    extra = error.headers if isinstance(error, HttpError) else ()
    headers = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Content-Length", str(len(body)).encode()),
        (b"Connection", b"close"),
        *extra,
    ]
    answer = h11.Response(
        status_code=error.status, headers=headers, reason=_REASONS.get(error.status, b"")
    )
    for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
        transport.write(parser.send(event) or b"")
    await transport.drain()
    transport.finish()
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            while await transport.read():
                pass
    except TimeoutError:
        _log.debug("a client did not close after an error")
