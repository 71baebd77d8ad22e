"""Files from the web, for ``ADD`` and for a context's address.

The engine fetches them from where it stands, on the host. So that nobody reaches through it what
a build's container could not, services of the host's loopback and link-local addresses (a cloud's
metadata among them) are refused unless the build has the host's network.

An answer has to keep a speed, ends at the free space of the disk, and is never taken when it is
shorter than it said. A redirect away from https is refused.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import posixpath
import socket
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

import msgspec

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.images.registry.cancellation import Cancellation
from jaula.images.registry.http import url as http_url
from jaula.images.registry.http.certs_d import context
from jaula.images.registry.http.connection import Connection
from jaula.images.registry.http.proxy import Proxies
from jaula.images.registry.http.url import Url
from jaula.images.registry.timeouts import Timeouts
from jaula.storage import free_space
from jaula.storage.errors import is_full

_REDIRECTS = 10
_REDIRECTING = (301, 302, 303, 307, 308)
_PIECE = 1 << 18
_SHOWN = 300  # characters of an address in messages


class Download(msgspec.Struct, frozen=True):
    """What came: ``name`` is the last part of the address's path, perhaps ''; ``mtime`` seconds."""

    name: str
    digest: str
    size: int
    mtime: int | None


class Downloads:
    """Fetches for one build. ``host_network`` says that the host's own services may be asked."""

    def __init__(
        self,
        proxies: Proxies,
        cancel: Cancellation,
        *,
        host_network: bool = False,
        patience: Timeouts = Timeouts(),  # noqa: B008 - frozen
    ) -> None:
        self._proxies = proxies
        self._cancel = cancel
        self._host_network = host_network
        self._patience = patience

    def fetch(self, text: str, target: int) -> Download:
        """Write what is at an address to the descriptor ``target``.

        :raises InvalidRequest: it is no address, or the server refuses.
        :raises Unavailable: it cannot be reached, or broke off.
        """
        url = _parsed(text)
        for _ in range(_REDIRECTS + 1):
            location, done = self._once(url, text, target)
            if done is not None:
                return done
            following = _parsed(location, url)
            if url.scheme == "https" and following.scheme == "http":
                raise InvalidRequest(f"{_shown(text)} leads to a place without encryption")
            url = following
        raise InvalidRequest(f"{_shown(text)} leads on more than {_REDIRECTS} times")

    def _once(self, url: Url, text: str, target: int) -> tuple[str, Download | None]:
        """Where a redirect leads, or the file."""
        proxy = self._proxies.of(url)
        tls = context() if url.scheme == "https" else None
        connection = Connection(url, proxy, tls, self._patience)
        try:
            self._cancel.check()
            if proxy is None and not self._host_network:
                _look_up(url, text)
            connection.connect()
            held = connection.held
            assert held is not None
            if proxy is None and not self._host_network:
                refuse_host(held.getpeername()[0], text)  # a name may have another address by now
            with self._cancel.interrupting(held):
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
                connection.clock.document()
                answer = connection.getresponse()
                location = answer.headers.get("Location") or ""
                if answer.status in _REDIRECTING and location:
                    return location, None
                if answer.status != 200:
                    raise InvalidRequest(
                        f"{_shown(text)} cannot be fetched: the server answered {answer.status} "
                        f"{ascii(answer.reason)[1:-1]}"
                    )
                connection.clock.stream()
                return "", self._received(answer, url, text, target)
        except (OSError, http.client.HTTPException) as error:
            self._cancel.check()
            if is_full(error):
                raise Unavailable(
                    f"{_shown(text)} does not fit on the disk", hint="free some space"
                ) from error
            raise Unavailable(f"{_shown(text)} cannot be fetched: {_said(error)}") from error
        finally:
            connection.end()

    def _received(
        self, answer: http.client.HTTPResponse, url: Url, text: str, target: int
    ) -> Download:
        expected = answer.length
        digest, size = hashlib.sha256(), 0
        free_space.check(target, expected or 0)
        while piece := answer.read1(_PIECE):
            if size // (64 * _PIECE) != (size + len(piece)) // (64 * _PIECE):
                free_space.check(target, 0)
            digest.update(piece)
            size += len(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(target, view) :]
        self._cancel.check()
        if expected is not None and size != expected:
            raise Unavailable(f"{_shown(text)} broke off after {size} of {expected} bytes")
        path = unquote(_parsed(text).target.partition("?")[0])
        name = posixpath.basename(path)
        if name in (".", "..") or not name.isprintable():
            name = ""
        modified = answer.headers.get("Last-Modified") or ""
        return Download(name, "sha256:" + digest.hexdigest(), size, _seconds(modified))


def refuse_host(peer: str, text: str) -> None:
    """Raise :class:`InvalidRequest` for an address that only the host itself can mean."""
    found = ipaddress.ip_address(peer.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    if found.is_loopback or found.is_link_local or found.is_unspecified:
        raise InvalidRequest(
            f"{_shown(text)} is served by {peer}, which is for the host alone",
            hint="build with --network host where that is right and allowed",
        )


def _look_up(url: Url, text: str) -> None:
    """Refuse a name before anybody is asked: whether a port is open is the host's business, too."""
    for found in socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM):
        refuse_host(str(found[4][0]), text)


def _parsed(text: str, base: Url | None = None) -> Url:
    try:
        return http_url.parse(text.partition("#")[0], base)
    except InvalidRequest:
        raise InvalidRequest(
            f"{_shown(text)} is no address that can be fetched", hint="http:// or https://, a host"
        ) from None


def _seconds(text: str) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return None


def _shown(text: str) -> str:
    return ascii(text[:_SHOWN])[1:-1]


def _said(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "the answer broke off"
    if isinstance(error, JaulaError):
        return error.message
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "no answer"
