"""GET requests to the API of a source engine on a unix socket.

The engine is untrusted: its answers have a size limit and a time limit, and are decoded into types.
Requests have no API version, so the engine answers in its newest one.
"""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING, TypeVar, get_origin
from urllib.parse import quote, urlencode

import msgspec

from jaula.errors import InvalidRequest, NotFound, Unavailable
from jaula.spec.decode import decode

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_DOCUMENT_LIMIT = 64 << 20  # bytes of one JSON document
_TIMEOUT = 60.0  # seconds without a byte
_STREAM_TIMEOUT = 600.0  # seconds: dockerd writes an archive to its disk before it sends it
_CHUNK = 1 << 20  # bytes

_Type = TypeVar("_Type")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class SourceApi:
    """The API at one address, ``unix:///path``."""

    def __init__(self, address: str) -> None:
        """Check the address.

        :raises InvalidRequest: when it is not a unix socket.
        """
        self.address = address if "://" in address else f"unix://{address}"
        scheme, _, path = self.address.partition("://")
        if scheme != "unix" or not path.startswith("/"):
            raise InvalidRequest(
                f"--host {address}: the source must be a unix socket of this host",
                hint="files of volumes and containers are read from the disk; run the command on"
                " the source's host, and select the target with jaula --host",
            )
        self._path = path

    def get(self, path: str, kind: type[_Type], query: Sequence[tuple[str, str]] = ()) -> _Type:
        """Return a JSON document. A list may be ``null``.

        :raises NotFound: when the object does not exist.
        :raises Unavailable: when the engine does not answer or refuses.
        :raises InvalidRequest: when the answer is not such a document.
        """
        target = _target(path, query)
        connection = _UnixConnection(self._path, _TIMEOUT)
        try:
            try:
                connection.request("GET", target)
                response = connection.getresponse()
                data = response.read(_DOCUMENT_LIMIT + 1)
            except (OSError, http.client.HTTPException) as error:
                raise self._unavailable(target, error) from None
        finally:
            connection.close()
        if len(data) > _DOCUMENT_LIMIT:
            raise InvalidRequest(
                f"the answer of {self.address} to GET {target} is larger than"
                f" {_DOCUMENT_LIMIT >> 20} MiB"
            )
        if response.status != 200:
            raise self._refused(target, response.status, data)
        if get_origin(kind) is tuple and data.strip() == b"null":
            data = b"[]"  # an empty list of docker
        try:
            return decode(data, kind)
        except (msgspec.DecodeError, RecursionError, UnicodeError, TypeError) as error:
            raise InvalidRequest(
                f"the answer of {self.address} to GET {target} is not valid: {error}"
            ) from None

    def stream(self, path: str, query: Sequence[tuple[str, str]] = ()) -> Generator[bytes]:
        """Yield the body of an answer.

        :raises Unavailable: when the engine refuses, or the body ends too early.
        """
        target = _target(path, query)
        connection = _UnixConnection(self._path, _STREAM_TIMEOUT)
        try:
            try:
                connection.request("GET", target)
                response = connection.getresponse()
                if response.status != 200:
                    raise self._refused(target, response.status, response.read(_CHUNK))
                while chunk := response.read(_CHUNK):
                    yield chunk
            except (OSError, http.client.HTTPException) as error:
                raise self._unavailable(target, error) from None
        finally:
            connection.close()

    def _unavailable(self, target: str, error: Exception) -> Unavailable:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unavailable(
            f"the source at {self.address} does not answer GET {target}: {printable(reason)}",
            hint="name its socket with --host, or read its files with --root if it is stopped",
        )

    def _refused(self, target: str, status: int, data: bytes) -> NotFound | Unavailable:
        try:
            document = msgspec.json.decode(data)
            text = str(document["message"])
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            text = data.decode("utf-8", "replace")
        message = f"the source refused GET {target} with status {status}: {printable(text)}"
        return NotFound(message) if status == 404 else Unavailable(message)


def _target(path: str, query: Sequence[tuple[str, str]]) -> str:
    return quote(path) + (f"?{urlencode(query)}" if query else "")


def printable(text: object, limit: int = 200) -> str:
    """Return an untrusted text without control characters, cut to ``limit``. Pure."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:limit])
