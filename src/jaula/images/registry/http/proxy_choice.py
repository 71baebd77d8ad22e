"""Select the proxy for a request from settings and environment variables. Pure.

Source: Go's ``net/http`` and ``golang.org/x/net/http/httpproxy``, which dockerd uses. ``no-proxy``
contains names (``example.com`` and everything below), ``.example.com`` (only below), addresses and
networks, each with or without a port, or ``*``. Loopback addresses never use a proxy.
"""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.registry.http.url import Url, is_loopback


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy. ``authorization`` is the value of the header, empty without a user."""

    host: str
    port: int
    authorization: str = ""


class Proxies:
    """The proxies of each scheme, and the hosts that use none."""

    def __init__(self, http: str, https: str, exceptions: str) -> None:
        self._by_scheme = {"http": _proxy(http), "https": _proxy(https)}
        self._exceptions = [
            pattern.strip().lower() for pattern in exceptions.split(",") if pattern.strip()
        ]

    def of(self, url: Url) -> Proxy | None:
        """Return the proxy for ``url``, or None."""
        proxy = self._by_scheme[url.scheme]
        if proxy is None or is_loopback(url.host):
            return None
        if any(_matches(pattern, url) for pattern in self._exceptions):
            return None
        return proxy


def configured_proxies(
    http: str, https: str, exceptions: str, environment: Mapping[str, str]
) -> Proxies:
    """Return the proxies from the settings, or from the environment variables for unset ones."""

    def variable(name: str) -> str:
        return environment.get(name.upper()) or environment.get(name) or ""

    return Proxies(
        http or variable("http_proxy"),
        https or variable("https_proxy"),
        exceptions or variable("no_proxy"),
    )


def _matches(pattern: str, url: Url) -> bool:
    if pattern == "*":
        return True
    name, colon, port = pattern.rpartition(":")
    if colon and port.isdigit() and ":" not in name.strip("[]"):
        if int(port) != url.port:
            return False
        pattern = name
    try:
        return ipaddress.ip_address(url.host) in ipaddress.ip_network(pattern.strip("[]"))
    except (ValueError, TypeError):
        pass  # the host or the pattern is a name
    if pattern.startswith("."):
        return url.host.endswith(pattern)
    return url.host == pattern or url.host.endswith("." + pattern)


def _proxy(text: str) -> Proxy | None:
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http":
        raise InvalidRequest("a proxy address must be http://[USER:PASSWORD@]HOST[:PORT]")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + b64encode(pair.encode()).decode()
    return Proxy(host, port or 80, authorization)
