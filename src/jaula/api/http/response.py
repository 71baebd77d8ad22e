"""The answer of a route: a whole body, a stream of chunks, or a hijacked connection.

A route returns the answer as a value and the session writes it. So routes are free of HTTP, and
tests compare values. Streams of JSON documents have one document a line (moby ``pkg/jsonmessage``,
events, stats).
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from itertools import chain
from typing import Any, Final

import msgspec

from jaula.errors import JaulaError
from jaula.spec.api_params import SendStream

JSON = b"application/json"
OCTETS = b"application/octet-stream"
TAR = b"application/x-tar"
TEXT = b"text/plain; charset=utf-8"
RAW_STREAM = b"application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = b"application/vnd.docker.multiplexed-stream"
PIECE: Final = 64 * 1024  # bytes that are encoded in one turn of the event loop, or one item


class Response(msgspec.Struct, frozen=True):
    """A complete answer; ``content_type`` None means no body."""

    status: int
    body: bytes = b""
    content_type: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class StreamResponse(msgspec.Struct, frozen=True):
    """An answer of unknown length, sent in chunks. The iterator is closed when the client leaves.

    ``at_once`` sends the head before the first chunk exists (wait, events, a followed log).
    Otherwise the head waits for the first chunk, so an error before it becomes an HTTP error.
    ``error_chunk`` turns an error after the head into a final chunk. Without it the connection is
    cut, which a client sees as an incomplete body.
    """

    chunks: AsyncIterator[bytes]
    content_type: bytes = JSON
    at_once: bool = False
    error_chunk: Callable[[JaulaError], bytes] | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


class HijackResponse(msgspec.Struct, frozen=True):
    """The connection leaves HTTP and its descriptor is handed over.

    ``take`` gets a duplicate of the socket and the bytes that arrived after the head. It owns the
    descriptor from the call on. ``error_chunk`` is what the client reads if ``take`` raises.
    ``head`` is the answer to an upgrade to a protocol other than ``tcp``; it may be empty.
    ``until_close`` means that ``take`` serves the client itself, and is cancelled when the server
    closes.
    """

    content_type: bytes
    take: Callable[[int, bytes], Awaitable[None]]
    error_chunk: Callable[[JaulaError], bytes]
    head: bytes | None = None
    until_close: bool = False


class DelegatedResponse(msgspec.Struct, frozen=True):
    """An answer whose body another process sends, on a duplicate of the socket.

    The engine keeps the connection, so that it counts as the client's and ends when the client
    leaves. No request follows.
    """

    send: SendStream
    content_type: bytes


Answer = Response | StreamResponse | HijackResponse | DelegatedResponse


def encode(document: Any) -> bytes:
    """Return a line of JSON. Lone surrogates become U+FFFD, as in Go.

    Names of files that are not UTF-8 contain lone surrogates.
    """
    return _encode(document) + b"\n"


def _encode(document: Any) -> bytes:
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return msgspec.json.encode(_replace_surrogates(msgspec.to_builtins(document)))


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_replace_surrogates(k): _replace_surrogates(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_replace_surrogates(v) for v in value]
    return value


def json(document: Any, status: int = 200) -> Response:
    """Return an answer with a JSON document."""
    return Response(status, encode(document), JSON)


def long_json(document: Any, depth: int = 1) -> Answer:
    """Return an answer with a JSON document that may be long, such as a list of all containers.

    It is encoded in pieces, between which other requests get their turn. What is ``depth`` levels
    deep is encoded at once: 1 for the items of a list, 2 for those of a list that is a member.
    """
    pieces = _pieces(document, depth)
    first, second = next(pieces), next(pieces, None)
    if second is None:
        return Response(200, first, JSON)
    return StreamResponse(_stream((first, second), pieces))


def _pieces(document: Any, depth: int) -> Iterator[bytes]:
    """Yield the encoded document in pieces of :data:`PIECE` bytes or more. The last has less."""
    parts: list[bytes] = []
    size = 0
    for part in _parts(document, depth):
        parts.append(part)
        size += len(part)
        if size >= PIECE:
            yield b"".join(parts)
            parts.clear()
            size = 0
    yield b"".join((*parts, b"\n"))


def _parts(document: Any, depth: int) -> Iterator[bytes]:
    if not document or not depth or not isinstance(document, dict | list | tuple):
        yield _encode(document)
    elif isinstance(document, dict):
        separator = b"{"
        for name, value in document.items():
            yield separator + _encode(name) + b":"
            yield from _parts(value, depth - 1)
            separator = b","
        yield b"}"
    else:
        separator = b"["
        for item in document:
            yield separator
            yield from _parts(item, depth - 1)
            separator = b","
        yield b"]"


async def _stream(begun: Iterable[bytes], rest: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in chain(begun, rest):
        yield piece


NO_CONTENT = Response(204)
OK = Response(200)
CREATED = Response(201)


def error_response(status: int, message: str) -> Response:
    """Return an answer with Docker's error document; 304 has no body."""
    if status == 304:
        return Response(304)
    return json({"message": message}, status)


def progress_error(error: JaulaError) -> bytes:
    """Return the last line of a failed progress stream (moby ``pkg/jsonmessage``)."""
    text = str(error)
    return encode({"errorDetail": {"message": text}, "error": text})


async def close(iterator: AsyncIterator[Any]) -> None:
    """Run the clean-up of a generator now; a plain iterator has none."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        await aclose()


async def json_lines(
    documents: AsyncIterator[dict[str, Any]],
    convert: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    separator: bytes = b"",
) -> AsyncIterator[bytes]:
    """Yield each document, converted, as a line after ``separator``.

    Closing this closes ``documents``.
    """
    try:
        async for document in documents:
            yield separator + encode(convert(document))
    finally:
        await close(documents)
