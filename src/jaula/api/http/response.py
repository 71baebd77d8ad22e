"""What a route answers with: a whole body, a stream of chunks, or a hijacked connection.

A route decides the answer, the connection writes it; that keeps routes free of HTTP and lets a
test compare values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from jaula.errors import JaulaError

JSON = b"application/json"
OCTETS = b"application/octet-stream"
TAR = b"application/x-tar"
TEXT = b"text/plain; charset=utf-8"
RAW_STREAM = b"application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = b"application/vnd.docker.multiplexed-stream"


class Response(msgspec.Struct, frozen=True):
    """A complete answer; ``content_type`` None means that there is no body."""

    status: int
    body: bytes = b""
    content_type: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class StreamResponse(msgspec.Struct, frozen=True):
    """An answer of unknown length, sent in chunks; the iterator is closed when the client goes.

    ``at_once`` sends the head before the first chunk exists (wait, events, a followed log).
    Otherwise the first chunk is awaited, so that an error raised before it becomes an HTTP error.
    ``last_words`` turns an error after the head into a final chunk; without it the connection is
    cut, which a client sees as an incomplete body.
    """

    chunks: AsyncIterator[bytes]
    content_type: bytes = JSON
    at_once: bool = False
    last_words: Callable[[JaulaError], bytes] | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class HijackResponse(msgspec.Struct, frozen=True):
    """The connection leaves HTTP and its descriptor is given away.

    ``take`` gets a duplicate of the socket and the bytes that arrived after the head, and owns the
    descriptor from then on. ``last_words`` is what the client reads if ``take`` raises. ``head`` is
    the answer to an upgrade to another protocol than ``tcp``.
    """

    content_type: bytes
    take: Callable[[int, bytes], Awaitable[None]]
    last_words: Callable[[JaulaError], bytes]
    head: bytes | None = None


Answer = Response | StreamResponse | HijackResponse


def encode(document: Any) -> bytes:
    """One line of JSON. Lone surrogates (file names that are not UTF-8) become U+FFFD, as in Go."""
    try:
        return msgspec.json.encode(document) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_printable(msgspec.to_builtins(document))) + b"\n"


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_printable(k): _printable(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_printable(v) for v in value]
    return value


def json(document: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, encode(document), JSON)


NO_CONTENT = Response(204)
OK = Response(200)
CREATED = Response(201)


def error(status: int, message: str) -> Response:
    """Docker's error document; 304 has no body."""
    if status == 304:
        return Response(304)
    return json({"message": message}, status)


def progress_error(problem: JaulaError) -> bytes:
    """The last line of a progress stream that failed (moby ``pkg/jsonmessage``)."""
    text = str(problem)
    return encode({"errorDetail": {"message": text}, "error": text})
