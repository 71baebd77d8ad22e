"""The proxy for a request, by the variables that everybody knows. Pure.

Source: Go's ``net/http`` and ``golang.org/x/net/http/httpproxy``, which dockerd uses: ``no-proxy``
holds names (``example.com`` and everything below), ``.example.com`` (below only), addresses,
networks, each with a port or without, or ``*``. Loopback addresses never go through a proxy.
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
    """An HTTP proxy; ``authorization`` is the value of its header, empty without a user."""

    host: str
    port: int
    authorization: str = ""


class Proxies:
    """Settings, else the environment's."""

    def __init__(self, http: str, https: str, exceptions: str) -> None:
        self._by_scheme = {"http": _proxy(http), "https": _proxy(https)}
        self._exceptions = [word.strip().lower() for word in exceptions.split(",") if word.strip()]

    def of(self, url: Url) -> Proxy | None:
        """The proxy that ``url`` is fetched through, None for none."""
        proxy = self._by_scheme[url.scheme]
        if proxy is None or is_loopback(url.host):
            return None
        if any(_matches(word, url) for word in self._exceptions):
            return None
        return proxy


def configured(http: str, https: str, exceptions: str, environment: Mapping[str, str]) -> Proxies:
    """What was set, and for each that was not the variable of its name, in either case."""

    def variable(name: str) -> str:
        return environment.get(name.upper()) or environment.get(name) or ""

    return Proxies(
        http or variable("http_proxy"),
        https or variable("https_proxy"),
        exceptions or variable("no_proxy"),
    )


def _matches(word: str, url: Url) -> bool:
    if word == "*":
        return True
    name, colon, port = word.rpartition(":")
    if colon and port.isdigit() and ":" not in name.strip("[]"):
        if int(port) != url.port:
            return False
        word = name
    try:
        return ipaddress.ip_address(url.host) in ipaddress.ip_network(word.strip("[]"))
    except (ValueError, TypeError):
        pass  # one of the two is a name
    if word.startswith("."):
        return url.host.endswith(word)
    return url.host == word or url.host.endswith("." + word)


def _proxy(text: str) -> Proxy | None:
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http":
        raise InvalidRequest("a proxy's address is not http://[USER:PASSWORD@]HOST[:PORT]")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + b64encode(pair.encode()).decode()
    return Proxy(host, port or 80, authorization)
