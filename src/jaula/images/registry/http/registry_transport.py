"""Requests to registries: reused connections, redirects, limits.

* An ``Authorization`` header is for one origin (scheme, host, port). A redirect to another origin
  drops it. A redirect from https to http is refused. One to http is followed only if the operator
  allows plain HTTP for that host.
* A server outside the host cannot refer to an address of the host, by a redirect or as its token
  server: only the client that names a registry decides that the engine connects to the host itself.
* A response is read under a limit, or as a stream of known length.
* An idle connection may be dead. A request that fails on one is repeated on a new connection.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from time import monotonic
from types import TracebackType

import msgspec

from jaula.errors import InvalidRequest, NotAuthorized
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.certs_d import tls_context
from jaula.images.registry.http.proxy_choice import Proxies
from jaula.images.registry.http.registry_connection import Connection
from jaula.images.registry.http.url import Url
from jaula.images.registry.registry_errors import ConnectionLost, unreachable
from jaula.images.registry.registry_hosts import Endpoint, Hosts
from jaula.images.registry.timeouts import REDIRECTS, Timeouts
from jaula.spec.host_address import is_host_address

_IDLE = 30.0  # seconds after which an idle connection is closed
_MAX_IDLE = 8  # connections
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)

Body = Callable[[], Iterable[bytes]]


class HttpResponse:
    """Status, headers and the body as a stream. A ``with`` statement releases the connection."""

    def __init__(
        self,
        url: Url,
        response: http.client.HTTPResponse,
        release: Callable[[bool], None],
        *,
        redirected: bool,
    ) -> None:
        self.url = url
        self.status = response.status
        self.redirected = redirected  # to another origin
        self._response = response
        self._release = release

    def header(self, name: str) -> str:
        """Return the value of a header, empty if absent."""
        return self._response.headers.get(name) or ""

    def headers(self, name: str) -> list[str]:
        return self._response.headers.get_all(name) or []

    @property
    def length(self) -> int | None:
        """Return the length of the body in bytes, None if the response does not state it."""
        return self._response.length

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most ``size``; empty at the end.

        :raises ConnectionLost: if the connection fails.
        """
        try:
            return self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionLost(
                f"{self.url.authority} closed the connection: {_reason(error)}"
            ) from error

    def document(self, limit: int, what: str) -> bytes:
        """Return the whole body. ``what`` names it in errors.

        :raises InvalidRequest: if it has more than ``limit`` bytes.
        :raises ConnectionLost: if the connection fails.
        """
        if self.length is not None and self.length > limit:
            raise InvalidRequest(f"{what} has {self.length} bytes, the limit is {limit}")
        expected, data = self.length, bytearray()
        while chunk := self.read(1 << 16):
            data += chunk
            if len(data) > limit:
                raise InvalidRequest(f"{what} is longer than the limit of {limit} bytes")
        if expected is not None and len(data) < expected:
            raise ConnectionLost(
                f"{self.url.authority} closed the connection after {len(data)} bytes of {what}"
            )
        return bytes(data)

    def drop(self) -> None:
        """Discard a response that is not read."""
        self._response.close()
        self._release(False)

    def __enter__(self) -> HttpResponse:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        complete = self._response.isclosed() or self._response.length == 0
        self._response.close()
        self._release(kind is None and complete)


class Transport:
    """The connections of one engine to all registries. Methods may be called from any thread."""

    def __init__(self, hosts: Hosts, proxies: Proxies, timeouts: Timeouts) -> None:
        self.hosts = hosts
        self.timeouts = timeouts
        self._proxies = proxies
        self._lock = threading.Lock()
        self._idle: list[tuple[tuple[object, ...], Connection]] = []

    def request(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        *,
        cancel: Cancellation,
        endpoint: Endpoint | None = None,
        body: Body | None = None,
        stream: bool = False,
    ) -> HttpResponse:
        """Send one request and follow redirects of GET and HEAD.

        ``endpoint`` is the registry's server, with its settings for verification. ``stream`` is
        true if the body of the response is a blob.

        :raises Unreachable: if the server does not respond.
        """
        first_url, request_headers = url, dict(headers)
        for _ in range(REDIRECTS + 1):
            response = self._once(
                method, url, request_headers, cancel, endpoint, body, stream, first_url
            )
            location = response.header("Location")
            follow = (
                method in ("GET", "HEAD") and response.status in _REDIRECT_STATUSES and location
            )
            if not follow:
                return response
            response.drop()
            target = http_url.parse(location, url)
            self._check_redirect(url, target, endpoint)
            self.check_reference(first_url, target)
            if target.origin != url.origin:
                request_headers.pop("Authorization", None)
            url = target
        raise InvalidRequest(f"{first_url.authority} redirects more than {REDIRECTS} times")

    def check_reference(self, source: Url, target: Url) -> None:
        """Check that a server may refer the engine to ``target``.

        :raises NotAuthorized: if the target is the host itself and the server is not.
        """
        if target.host != source.host and self._is_host(target) and not self._is_host(source):
            raise NotAuthorized(
                f"{source.authority} refers to {target.authority}, an address of the host itself:"
                " refused"
            )

    def _is_host(self, url: Url) -> bool:
        """Return whether one of the IP addresses that the engine would connect to is the host's."""
        if self._proxies.of(url) is not None:
            return False
        try:
            found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        except OSError:
            return False  # a connection fails too
        return any(is_host_address(str(address[4][0])) for address in found)

    def _check_redirect(self, source: Url, target: Url, endpoint: Endpoint | None) -> None:
        if target.scheme == "https":
            return
        if source.origin == target.origin and endpoint is not None and endpoint.serves(target):
            return
        if source.scheme == "https":
            raise InvalidRequest(
                f"{source.authority} redirects to {target.authority} without encryption, "
                "which is refused"
            )
        if not self.hosts.is_insecure(target.host, target.port):
            raise InvalidRequest(
                f"{source.authority} redirects to {target.authority}, which may not be reached "
                "without encryption",
                hint="if this is intended, configure it as an insecure registry",
            )

    def _once(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str],
        cancel: Cancellation,
        endpoint: Endpoint | None,
        body: Body | None,
        stream: bool,
        first_url: Url,
    ) -> HttpResponse:
        key, make = self._connector(url, endpoint)
        while True:
            connection = self._take(key) or make()
            reused = connection.sock is not None
            stack = ExitStack()
            try:
                if not reused:
                    connection.connect()
                assert connection.raw_socket is not None
                stack.enter_context(cancel.interrupting(connection.raw_socket))
                try:
                    connection.request(
                        method,
                        connection.target() + url.target,
                        body=body() if body is not None else None,
                        headers=_merge(
                            {"User-Agent": "jaula"},
                            dict(endpoint.headers) if endpoint and endpoint.serves(url) else {},
                            headers,
                            {"Host": url.authority, "Accept-Encoding": "identity"},
                            connection.proxy_headers(),
                        ),
                    )
                except (BrokenPipeError, ConnectionResetError):
                    if body is None:
                        raise
                    # the response may explain why the body was not read to its end
                connection.deadline.document(committing=body is not None)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                stack.close()
                connection.end()
                cancel.check()
                if reused and not isinstance(error, TimeoutError):
                    continue
                raise unreachable(method, url, error) from error
            except BaseException:
                stack.close()
                connection.end()
                raise
            if stream:
                connection.deadline.stream()

            def release(
                reusable: bool, connection: Connection = connection, stack: ExitStack = stack
            ) -> None:
                stack.close()
                if reusable and connection.sock is not None:
                    self._put(key, connection)
                else:
                    connection.end()

            return HttpResponse(url, response, release, redirected=url.origin != first_url.origin)

    def _connector(
        self, url: Url, endpoint: Endpoint | None
    ) -> tuple[tuple[object, ...], Callable[[], Connection]]:
        """Return the pool key for ``url``, and a function that makes a connection."""
        timeouts = self.timeouts
        if endpoint is not None and endpoint.serves(url):
            security = endpoint.security
            if endpoint.dial_timeout:
                timeouts = msgspec.structs.replace(timeouts, connect=endpoint.dial_timeout)
        else:
            security = self.hosts.security(url.host, url.port, url.authority)
        proxy = self._proxies.of(url)

        def make() -> Connection:
            tls = None
            if url.scheme == "https":
                tls = tls_context(security.certificates, verify=security.verify)
            return Connection(url, proxy, tls, timeouts)

        return (url.origin, security, proxy), make

    def _take(self, key: tuple[object, ...]) -> Connection | None:
        now = monotonic()
        with self._lock:
            for expired in [c for c in self._idle if now - c[1].idle_since > _IDLE]:
                self._idle.remove(expired)
                expired[1].end()
            for idle in self._idle:
                if idle[0] == key:
                    self._idle.remove(idle)
                    return idle[1]
        return None

    def _put(self, key: tuple[object, ...], connection: Connection) -> None:
        connection.idle_since = monotonic()
        with self._lock:
            self._idle.append((key, connection))
            while len(self._idle) > _MAX_IDLE:
                self._idle.pop(0)[1].end()

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for _, connection in self._idle:
                connection.end()
            self._idle.clear()


def _merge(*headers: Mapping[str, str]) -> dict[str, str]:
    """Return all headers; of one with several values the last. Names have no case."""
    merged: dict[str, tuple[str, str]] = {}
    for each in headers:
        merged.update({name.lower(): (name, value) for name, value in each.items()})
    return dict(merged.values())


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"{error.expected} bytes are missing"
    if isinstance(error, ssl.SSLError):
        return "the TLS connection ended without close_notify"
    return str(error) or type(error).__name__
