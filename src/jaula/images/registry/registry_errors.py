"""Errors of registries, in Docker's words.

Sources: distribution-spec 1.1 "Error Codes"; the texts are those of dockerd 26. A registry's
message is truncated and stripped of control characters, since it is printed on terminals.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
import ssl

import msgspec

from jaula.errors import JaulaError, NotFound
from jaula.images.registry.http.url import Url

_MESSAGE_LIMIT = 600  # characters of a registry's message
_CODE = re.compile(r"[A-Z0-9_]{1,64}", re.ASCII)


class Unreachable(JaulaError):
    """No response, because of the name, the network or TLS.

    ``try_plain_http`` is true if plain HTTP may work.
    """

    status = 500

    def __init__(
        self, message: str, *, try_plain_http: bool = False, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.try_plain_http = try_plain_http


class ConnectionLost(JaulaError):
    """A response that ended too early or was too slow. Another attempt may succeed."""

    status = 500


class NoCredentials(JaulaError):
    """The registry requires authentication and no credentials are configured."""

    status = 500


class RegistryError(JaulaError):
    """The registry responded with an error. ``code`` is the specification's, in lower case."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(f"{code.replace('_', ' ')}: {message}" if code else message)
        self.code = code
        self.status = status if status in (400, 401, 403, 404, 405, 429) else 500
        self.http_status = status

    @property
    def is_temporary(self) -> bool:
        """Return whether the same request may succeed later."""
        return self.http_status in (429, 500, 502, 503, 504)


class _Error(msgspec.Struct, frozen=True):
    code: str = ""
    message: str | None = None


class _Errors(msgspec.Struct, frozen=True):
    """The errors of the distribution spec, or the members that token servers have instead."""

    errors: tuple[_Error, ...] = ()
    details: str | None = None
    message: str | None = None
    error_description: str | None = None  # RFC 6749, section 5.2


def printable(text: str) -> str:
    """Return ``text`` as one printable line."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MESSAGE_LIMIT])


def registry_error(status: int, data: bytes) -> RegistryError:
    """Return the error in a response's document, or one from the HTTP status alone."""
    try:
        document = msgspec.json.decode(data, type=_Errors)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        document = _Errors()
    for error in document.errors:
        if _CODE.fullmatch(error.code.upper()):
            code = error.code.lower()
            return RegistryError(code, printable(error.message or code.replace("_", " ")), status)
    reason = document.details or document.message or document.error_description
    if status == 401:
        return RegistryError("unauthorized", printable(reason or "authentication required"), status)
    if reason:
        return RegistryError("", printable(reason), status)
    if status == 404:
        return RegistryError("", "not found", status)
    return RegistryError("", f"received unexpected HTTP status: {status_line(status)}", status)


def status_line(status: int) -> str:
    """Return a status with its reason: ``401 Unauthorized``."""
    return f"{status} {http.client.responses.get(status, '')}".rstrip()


def pull_error(error: RegistryError, repository: str, reference: str) -> JaulaError:
    """Return the error of a pull in Docker's words."""
    if error.code == "denied":
        return NotFound(
            f"pull access denied for {repository}, repository does not exist or may require "
            f"'docker login': {error.message}"
        )
    if error.code == "manifest_unknown" or (error.code == "" and error.http_status == 404):
        message = error.message if error.code else "manifest unknown: manifest unknown"
        return NotFound(f"manifest for {reference} not found: {message}")
    if error.code == "name_unknown":
        return NotFound(f"repository {repository} not found: {error.message}")
    return error


def unreachable(method: str, url: Url, error: Exception) -> Unreachable:
    """Return the error for a request to ``url`` that got no response."""
    prefix = f'{method.capitalize()} "{url}": '
    address = f"{url.host}:{url.port}" if ":" not in url.host else f"[{url.host}]:{url.port}"
    if isinstance(error, socket.gaierror):
        return Unreachable(
            f"{prefix}dial tcp: lookup {url.host}: no such host", try_plain_http=True
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(
            f"{prefix}tls: failed to verify certificate: {printable(error.verify_message)}"
        )
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "").lower().replace("_", " ")
        return Unreachable(f"{prefix}tls: {reason or 'the connection ended'}", try_plain_http=True)
    if isinstance(error, TimeoutError):
        return Unreachable(f"{prefix}dial tcp {address}: i/o timeout")
    if isinstance(error, http.client.HTTPException):
        word = printable(str(error)) or type(error).__name__
        return Unreachable(f"{prefix}not an HTTP response: {word}")
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return Unreachable(f"{prefix}{printable(str(error))}", try_plain_http=True)
    reason = os.strerror(number).lower()
    if number in (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT):
        return Unreachable(f"{prefix}dial tcp {address}: connect: {reason}", try_plain_http=True)
    return Unreachable(f"{prefix}{reason}", try_plain_http=True)
