"""A client of the engine's API on asyncio: one connection for each request, on behalf of a user.

The bodies of requests and answers are streams, so an archive is never held in memory. A connection
that became a raw stream (exec and attach) is returned as a reader and a writer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import h11
import msgspec

from jaula.errors import JaulaError, Unavailable

if TYPE_CHECKING:
    from jaula.spec.api_params import WebUser

API = "/v1.55"
MAX_DOCUMENT = 64 * 1024 * 1024  # bytes of an answer that is read as a whole
MAX_MESSAGE = 1000  # bytes of an error that is not a document of the engine
_CHUNK = 64 * 1024  # bytes
_MAX_HEAD = 256 * 1024  # bytes; the head of an answer may have the stat of a path
_CONNECT_SECONDS = 10.0

Headers = Sequence[tuple[str, str]]


class EngineDown(Unavailable):
    """The engine does not answer on its socket."""


class Hijacked(NamedTuple):
    """A connection that is a raw stream now. ``early`` are its first bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    early: bytes


class Answer:
    """One answer, whose body is read by :meth:`chunks`, :meth:`read` or not at all."""

    def __init__(
        self, connection: _Connection, head: h11.Response | h11.InformationalResponse
    ) -> None:
        self._connection = connection
        self.status = head.status_code
        self.headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body, and close the connection.

        :raises EngineDown: when the engine ends before the body does.
        """
        try:
            while True:
                event = await self._connection.event()
                if isinstance(event, h11.Data):
                    yield bytes(event.data)
                else:
                    return
        finally:
            self.close()

    async def read(self) -> bytes:
        """Return the whole body.

        :raises Unavailable: when it is larger than :data:`MAX_DOCUMENT`.
        """
        data = bytearray()
        async for chunk in self.chunks():
            data += chunk
            if len(data) > MAX_DOCUMENT:
                raise Unavailable(f"the engine's answer is larger than {MAX_DOCUMENT} bytes")
        return bytes(data)

    def close(self) -> None:
        """Close the connection; the engine ends the stream."""
        self._connection.close()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)

    async def send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        data = self.http.send(event)
        if data:
            self.writer.write(data)
            await self.writer.drain()

    async def event(self) -> Any:
        """Return the next event.

        :raises EngineDown: when the engine closed the connection, or sends something else.
        """
        try:
            while True:
                event = self.http.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self.http.receive_data(await self.reader.read(_CHUNK))
        except (OSError, h11.RemoteProtocolError) as error:
            raise EngineDown(f"the engine ended the connection: {error}") from None

    def close(self) -> None:
        self.writer.close()


class EngineClient:
    """Sends requests to the engine on one unix socket."""

    def __init__(self, socket: str) -> None:
        self.socket = socket

    async def open(
        self,
        method: str,
        target: str,
        user: WebUser | None = None,
        *,
        headers: Headers = (),
        body: bytes | AsyncIterator[bytes] | None = None,
    ) -> Answer:
        """Send a request and return the answer, whatever its status. ``target`` is encoded.

        ``user`` is the user to act for; None is this process itself.

        :raises EngineDown: when the engine does not answer.
        """
        connection = await self._connect()
        try:
            await self._request(connection, method, target, user, headers, body)
            return Answer(connection, await self._head(connection))
        except BaseException:
            connection.close()
            raise

    async def document(
        self,
        method: str,
        path: str,
        user: WebUser | None = None,
        body: object = None,
    ) -> Any:
        """Send a JSON document and return that of the answer, None if it has no body.

        :raises JaulaError: with the engine's message and status when it refuses.
        """
        data = None if body is None else json.dumps(body).encode()
        kind = () if body is None else (("Content-Type", "application/json"),)
        answer = await self.open(method, API + path, user, headers=kind, body=data)
        content = await answer.read()
        if answer.status >= 400:
            raise engine_error(answer.status, content)
        return json.loads(content) if content.strip() else None

    async def hijack(self, path: str, user: WebUser, body: object = None) -> Hijacked:
        """POST a request that takes the connection out of HTTP.

        :raises JaulaError: with the engine's message and status when it refuses.
        """
        connection = await self._connect()
        try:
            data = b"" if body is None else json.dumps(body).encode()
            upgrade = (
                ("Content-Type", "application/json"),
                ("Connection", "Upgrade"),
                ("Upgrade", "tcp"),
            )
            await self._request(connection, "POST", API + path, user, upgrade, data)
            head = await self._head(connection, upgraded=True)
            if head.status_code != 101:
                content = await Answer(connection, head).read()
                raise engine_error(head.status_code, content)
        except BaseException:
            connection.close()
            raise
        return Hijacked(connection.reader, connection.writer, connection.http.trailing_data[0])

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return _Connection(*await asyncio.open_unix_connection(self.socket))
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "it does not answer"
            raise EngineDown(f"the engine at {self.socket} is not running: {reason}") from None

    async def _request(
        self,
        connection: _Connection,
        method: str,
        target: str,
        user: WebUser | None,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> None:
        lines = [("Host", "jaula"), *headers]
        if user is not None:
            lines.append(("Jaula-Web-User", msgspec.json.encode(user).decode()))
        if not any(name.lower() == "connection" for name, _ in headers):
            lines.append(("Connection", "close"))
        if isinstance(body, bytes):
            lines.append(("Content-Length", str(len(body))))
        elif body is not None and not any(name.lower() == "content-length" for name, _ in headers):
            lines.append(("Transfer-Encoding", "chunked"))
        try:
            await connection.send(h11.Request(method=method, target=target, headers=lines))
            if isinstance(body, bytes):
                await connection.send(h11.Data(data=body))
            elif body is not None:
                async for chunk in body:
                    await connection.send(h11.Data(data=chunk))
            await connection.send(h11.EndOfMessage())
        except ConnectionError:
            return  # the engine may have answered already, with the reason

    async def _head(
        self, connection: _Connection, *, upgraded: bool = False
    ) -> h11.Response | h11.InformationalResponse:
        while True:
            event = await connection.event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse):
                if upgraded and event.status_code == 101:
                    return event
                continue
            raise EngineDown("the engine ended the connection without an answer")


def engine_error(status: int, content: bytes) -> JaulaError:
    """Return the error for an answer of the engine."""
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = (
            content[:MAX_MESSAGE].decode("utf-8", "replace").strip() or f"HTTP status {status}"
        )
    error = JaulaError(message)
    error.status = status
    return error
