"""Requests to registries: connections that are used again, redirects, nothing believed.

* An ``Authorization`` header is for one origin (scheme, host, port): a redirect to another one
  loses it. A redirect from https to http is refused; one to http is followed only where the
  operator allows that host plain HTTP.
* An answer is read under a limit or as a stream of a known length.
* A connection that was idle may be dead; such a request is done once more on a new one.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from time import monotonic
from types import TracebackType

from jaula.errors import InvalidRequest
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.errors import ConnectionLost, unreachable
from jaula.images.registry.hosts import Endpoint, Hosts
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.certs_d import context
from jaula.images.registry.http.connection import Connection
from jaula.images.registry.http.proxy import Proxies
from jaula.images.registry.http.url import Url
from jaula.images.registry.timeouts import REDIRECTS, Timeouts

_IDLE = 30.0  # seconds after which a connection is not used again
_KEPT = 8  # idle connections
_REDIRECTS = (301, 302, 303, 307, 308)

Body = Callable[[], Iterable[bytes]]


class HttpResponse:
    """Status and headers; the body while it comes. A ``with`` statement ends it."""

    def __init__(
        self,
        url: Url,
        response: http.client.HTTPResponse,
        give_back: Callable[[bool], None],
        *,
        redirected: bool,
    ) -> None:
        self.url = url
        self.status = response.status
        self.redirected = redirected  # to another origin
        self._response = response
        self._give_back = give_back

    def header(self, name: str) -> str:
        """A header's value, empty where it is absent."""
        return self._response.headers.get(name) or ""

    def headers(self, name: str) -> list[str]:
        return self._response.headers.get_all(name) or []

    @property
    def length(self) -> int | None:
        """What the answer says about its body, in bytes."""
        return self._response.length

    def read(self, size: int) -> bytes:
        """What came, at most ``size`` bytes; empty at the end. Raises :class:`ConnectionLost`."""
        try:
            return self._response.read1(size)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionLost(f"{self.url.authority} broke off: {_said(error)}") from error

    def document(self, limit: int, what: str) -> bytes:
        """The whole body. Raises :class:`InvalidRequest` beyond ``limit`` bytes."""
        if self.length is not None and self.length > limit:
            raise InvalidRequest(f"{what} has {self.length} bytes, at most {limit} are accepted")
        expected, data = self.length, bytearray()
        while piece := self.read(1 << 16):
            data += piece
            if len(data) > limit:
                raise InvalidRequest(f"{what} is longer than {limit} bytes, which is the limit")
        if expected is not None and len(data) < expected:
            raise ConnectionLost(f"{self.url.authority} broke off {what} after {len(data)} bytes")
        return bytes(data)

    def drop(self) -> None:
        """Let go of an answer that is not read."""
        self._response.close()
        self._give_back(False)

    def __enter__(self) -> HttpResponse:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        whole = self._response.isclosed() or self._response.length == 0
        self._response.close()
        self._give_back(kind is None and whole)


class Transport:
    """The connections of one engine to all registries. Methods may be called by any thread."""

    def __init__(self, hosts: Hosts, proxies: Proxies, patience: Timeouts) -> None:
        self.hosts = hosts
        self.patience = patience
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
        """Do one request and follow redirects of GET and HEAD.

        ``endpoint`` says how its own host is verified; ``stream`` that the body is a blob.
        Raises :class:`~jaula.images.registry.errors.Unreachable`.
        """
        asked, sent = url, dict(headers)
        for _ in range(REDIRECTS + 1):
            answer = self._once(method, url, sent, cancel, endpoint, body, stream, asked)
            location = answer.header("Location")
            follow = method in ("GET", "HEAD") and answer.status in _REDIRECTS and location
            if not follow:
                return answer
            answer.drop()
            target = http_url.parse(location, url)
            self._check_redirect(url, target)
            if target.origin != url.origin:
                sent.pop("Authorization", None)
            url = target
        raise InvalidRequest(f"{asked.authority} redirects in circles: more than {REDIRECTS} times")

    def _check_redirect(self, source: Url, target: Url) -> None:
        if target.scheme == "https":
            return
        if source.scheme == "https":
            raise InvalidRequest(
                f"{source.authority} redirects to {target.authority} without encryption, "
                "which is refused"
            )
        if not self.hosts.relaxed(target.host, target.port):
            raise InvalidRequest(
                f"{source.authority} redirects to {target.authority}, which may not be reached "
                "without encryption",
                hint="list it as an insecure registry if that is right",
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
        asked: Url,
    ) -> HttpResponse:
        key, make = self._maker(url, endpoint)
        while True:
            connection = self._take(key) or make()
            used = connection.sock is not None
            stack = ExitStack()
            try:
                if not used:
                    connection.connect()
                assert connection.held is not None
                stack.enter_context(cancel.interrupting(connection.held))
                try:
                    connection.request(
                        method,
                        connection.target() + url.target,
                        body=body() if body is not None else None,
                        headers={
                            "Host": url.authority,
                            "User-Agent": "jaula",
                            "Accept-Encoding": "identity",
                            **headers,
                            **connection.proxy_headers(),
                        },
                    )
                except (BrokenPipeError, ConnectionResetError):
                    if body is None:
                        raise
                    # else the answer may say why it was not read to its end
                connection.clock.document(committing=body is not None)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                stack.close()
                connection.end()
                cancel.check()
                if used and not isinstance(error, TimeoutError):
                    continue
                raise unreachable(method, url, error) from error
            except BaseException:
                stack.close()
                connection.end()
                raise
            if stream:
                connection.clock.stream()

            def give_back(
                reusable: bool, connection: Connection = connection, stack: ExitStack = stack
            ) -> None:
                stack.close()
                if reusable and connection.sock is not None:
                    self._put(key, connection)
                else:
                    connection.end()

            return HttpResponse(url, response, give_back, redirected=url.origin != asked.origin)

    def _maker(
        self, url: Url, endpoint: Endpoint | None
    ) -> tuple[tuple[object, ...], Callable[[], Connection]]:
        """The pool's key for ``url``, and what makes a connection."""
        verify, name = True, url.authority
        if endpoint is not None and any(url.origin == u.origin for u in endpoint.urls):
            verify, name = endpoint.verify, endpoint.name
        elif self.hosts.relaxed(url.host, url.port) and not self.hosts.has_certificates(name):
            verify = False
        proxy = self._proxies.of(url)

        def make() -> Connection:
            tls = None
            if url.scheme == "https":
                tls = context(self.hosts.certificate_directories(name), verify=verify)
            return Connection(url, proxy, tls, self.patience)

        return (url.origin, name, verify, proxy), make

    def _take(self, key: tuple[object, ...]) -> Connection | None:
        now = monotonic()
        with self._lock:
            for old in [c for c in self._idle if now - c[1].idle_since > _IDLE]:
                self._idle.remove(old)
                old[1].end()
            for kept in self._idle:
                if kept[0] == key:
                    self._idle.remove(kept)
                    return kept[1]
        return None

    def _put(self, key: tuple[object, ...], connection: Connection) -> None:
        connection.idle_since = monotonic()
        with self._lock:
            self._idle.append((key, connection))
            while len(self._idle) > _KEPT:
                self._idle.pop(0)[1].end()

    def close(self) -> None:
        """Let go of idle connections."""
        with self._lock:
            for _, connection in self._idle:
                connection.end()
            self._idle.clear()


def _said(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"{error.expected} bytes are missing"
    if isinstance(error, ssl.SSLError):
        return "the encrypted connection ended without a farewell"
    return str(error) or type(error).__name__
