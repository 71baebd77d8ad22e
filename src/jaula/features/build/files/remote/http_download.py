"""Download files for ``ADD`` and for the URL of a context.

The engine downloads from the host's network. A build must not reach services through the engine
that its containers cannot reach. So the host's loopback and link-local addresses, among them a
cloud's metadata service, are refused unless the build uses the host's network.

A response must keep a minimum speed and leave free disk space. It is refused if it is shorter than
stated. A redirect from https to http is refused.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import posixpath
import socket
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

import msgspec

from jaula.errors import InvalidRequest, JaulaError, Unavailable, resource_error
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.certs_d import tls_context
from jaula.images.registry.http.proxy_choice import Proxies
from jaula.images.registry.http.registry_connection import Connection
from jaula.images.registry.http.url import Url
from jaula.images.registry.timeouts import Timeouts
from jaula.spec.host_address import is_host_address
from jaula.storage import free_space

_MAX_REDIRECTS = 10
_REDIRECT_STATUSES = (301, 302, 303, 307, 308)
_CHUNK = 1 << 18  # bytes
_URL_LIMIT = 300  # characters of a URL in messages


class Download(msgspec.Struct, frozen=True):
    """A downloaded file. ``name`` is the last part of the URL's path, possibly ''.

    ``mtime`` is in seconds since the epoch, None if the server does not state it.
    """

    name: str
    digest: str
    size: int
    mtime: int | None


class Downloads:
    """The downloads of one build. ``host_network`` allows the host's own addresses."""

    def __init__(
        self,
        proxies: Proxies,
        cancel: Cancellation,
        *,
        host_network: bool = False,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> None:
        self._proxies = proxies
        self._cancel = cancel
        self._host_network = host_network
        self._timeouts = timeouts

    def fetch(self, text: str, target: int) -> Download:
        """Download a URL to the descriptor ``target``.

        :raises InvalidRequest: if the URL is not valid or the server refuses.
        :raises Unavailable: if the server cannot be reached or drops the connection.
        """
        url = _parse(text)
        for _ in range(_MAX_REDIRECTS + 1):
            location, download = self._once(url, text, target)
            if download is not None:
                return download
            following = _parse(location, url)
            if url.scheme == "https" and following.scheme == "http":
                raise InvalidRequest(f"{_printable(text)} redirects to a server without encryption")
            url = following
        raise InvalidRequest(f"{_printable(text)} redirects more than {_MAX_REDIRECTS} times")

    def _once(self, url: Url, text: str, target: int) -> tuple[str, Download | None]:
        """Send one request and return the location of a redirect, or the downloaded file."""
        proxy = self._proxies.of(url)
        tls = tls_context() if url.scheme == "https" else None
        connection = Connection(url, proxy, tls, self._timeouts)
        try:
            self._cancel.check()
            if proxy is None and not self._host_network:
                _check_host(url, text)
            connection.connect()
            raw_socket = connection.raw_socket
            assert raw_socket is not None
            if proxy is None and not self._host_network:
                refuse_host(raw_socket.getpeername()[0], text)  # DNS may have changed since
            with self._cancel.interrupting(raw_socket):
                connection.request(
                    "GET",
                    connection.target() + url.target,
                    headers={
                        "Host": url.authority,
                        "User-Agent": "jaula",
                        "Accept-Encoding": "identity",
                        **connection.proxy_headers(),
                    },
                )
                connection.deadline.document()
                response = connection.getresponse()
                location = response.headers.get("Location") or ""
                if response.status in _REDIRECT_STATUSES and location:
                    return location, None
                if response.status != 200:
                    raise InvalidRequest(
                        f"{_printable(text)} cannot be fetched: "
                        f"the server responded {response.status} {ascii(response.reason)[1:-1]}"
                    )
                connection.deadline.stream()
                return "", self._receive(response, url, text, target)
        except (OSError, http.client.HTTPException) as error:
            self._cancel.check()
            unavailable = resource_error(error, f"{_printable(text)} cannot be stored")
            raise unavailable or Unavailable(
                f"{_printable(text)} cannot be fetched: {_reason(error)}"
            ) from error
        finally:
            connection.end()

    def _receive(
        self, response: http.client.HTTPResponse, url: Url, text: str, target: int
    ) -> Download:
        expected = response.length
        digest, size = hashlib.sha256(), 0
        free_space.check(target, expected or 0)
        while chunk := response.read1(_CHUNK):
            if size // (64 * _CHUNK) != (size + len(chunk)) // (64 * _CHUNK):
                free_space.check(target, 0)
            digest.update(chunk)
            size += len(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(target, view) :]
        self._cancel.check()
        if expected is not None and size != expected:
            raise Unavailable(f"{_printable(text)} ended after {size} of {expected} bytes")
        path = unquote(_parse(text).target.partition("?")[0])
        name = posixpath.basename(path)
        if name in (".", "..") or not name.isprintable():
            name = ""
        modified = response.headers.get("Last-Modified") or ""
        return Download(name, "sha256:" + digest.hexdigest(), size, _seconds(modified))


def refuse_host(peer: str, text: str) -> None:
    """Check that an address is not one of the host's own. ``text`` is the URL, for the error.

    :raises InvalidRequest: if it is a loopback, link-local or unspecified address.
    """
    if is_host_address(peer):
        raise InvalidRequest(
            f"{_printable(text)} is served by {peer}, an address of the host itself",
            hint="build with --network host if that is intended and allowed",
        )


def _check_host(url: Url, text: str) -> None:
    """Check a name before connecting: whether a port of the host is open is private, too."""
    for address in socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM):
        refuse_host(str(address[4][0]), text)


def _parse(text: str, base: Url | None = None) -> Url:
    try:
        return http_url.parse(text.partition("#")[0], base)
    except InvalidRequest:
        raise InvalidRequest(
            f"{_printable(text)} is not a valid URL", hint="use http:// or https:// and a host"
        ) from None


def _seconds(text: str) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return None


def _printable(text: str) -> str:
    return ascii(text[:_URL_LIMIT])[1:-1]


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was dropped"
    if isinstance(error, JaulaError):
        return error.message
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "no response"
