"""URLs in messages of registries: ``http`` or ``https``, a host and a target.

A URL with user information, a fragment or a character that is not allowed in a request line is
refused. So data from a registry can never become a second header or another host name.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

from jaula.errors import InvalidRequest

_LIMIT = 8192  # characters; the usual limit of a request line
_TARGET = re.compile(r"[!-~]*", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9a-fA-F:.]{2,45}", re.ASCII)
_PORTS = {"http": 80, "https": 443}


class Url(msgspec.Struct, frozen=True):
    """``host`` is in lower case without brackets; ``target`` is path and query."""

    scheme: str
    host: str
    port: int
    target: str = "/"

    @property
    def authority(self) -> str:
        """Return host and port as in a ``Host`` header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def at(self, target: str) -> Url:
        """Return a URL with the same host and another target."""
        return Url(self.scheme, self.host, self.port, target)

    def with_query(self, query: str) -> Url:
        """Return the URL with ``query`` appended to its parameters."""
        return self.at(self.target + ("&" if "?" in self.target else "?") + query)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse(text: str, base: Url | None = None) -> Url:
    """Parse a URL, or a reference relative to ``base``.

    :raises InvalidRequest: if it is not valid.
    """
    label = ascii(text[:200])
    if len(text) > _LIMIT or not _TARGET.fullmatch(text):
        raise InvalidRequest(f"the registry sent an invalid URL: {label}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidRequest(f"the registry sent an invalid URL: {label}: {error}") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not parts.scheme and not parts.netloc and base is not None:
        if not parts.path.startswith("/"):
            directory = base.target.partition("?")[0].rpartition("/")[0]
            target = f"{directory}/{target}"
        return base.at(target)
    scheme = parts.scheme or (base.scheme if base is not None else "")
    host = (parts.hostname or "").lower()
    if scheme not in _PORTS or not _HOST.fullmatch(host) or port == 0:
        raise InvalidRequest(f"the registry sent an unsupported URL: {label}")
    if "@" in parts.netloc:
        raise InvalidRequest(f"the registry sent a URL with user information: {host!a}")
    return Url(scheme, host, port or _PORTS[scheme], target)


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine: ``localhost``, 127.0.0.0/8 or ::1."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
