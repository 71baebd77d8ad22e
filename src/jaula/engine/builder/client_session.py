"""The engine's end of a build's session (:mod:`jaula.spec.build_session`).

A session belongs to whoever opened it: a build that names it must be the same caller's. What comes
on it is held in memory only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from jaula.errors import Conflict, InvalidRequest, NotFound, Unavailable
from jaula.spec import build_session as protocol
from jaula.spec.build_session import SessionRequestKind

_PATIENCE = 5.0  # seconds that a session may take to come after the build that names it
_ANSWER = 60.0  # seconds for a secret
_WAITING = 16  # frames of one stream that were not read yet
_GONE = "the client's session is gone"


class SessionStream:
    """One thing that the engine asked for."""

    def __init__(self, session: ClientSession, number: int) -> None:
        self._session = session
        self.number = number
        self.frames: asyncio.Queue[tuple[SessionRequestKind, bytes]] = asyncio.Queue(_WAITING)

    async def data(self) -> AsyncIterator[bytes]:
        """What the client sends until its END.

        :raises NotFound: the client does not have it.
        :raises Unavailable: it failed, or the session is gone.
        """
        while True:
            kind, payload = await self.frames.get()
            if kind is SessionRequestKind.DATA:
                yield payload
            elif kind is SessionRequestKind.END:
                return
            else:
                text = payload.decode(errors="replace")[:200]
                if text == protocol.UNKNOWN:
                    raise NotFound("the client has none of that name")
                raise Unavailable(f"the client says: {text}")

    async def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        for start in range(0, len(data), protocol.PAYLOAD_LIMIT):
            piece = data[start : start + protocol.PAYLOAD_LIMIT]
            await self._session.send(
                protocol.encode_frame(SessionRequestKind.DATA, self.number, piece)
            )

    async def end(self) -> None:
        """Say that nothing more comes."""
        await self._session.send(protocol.encode_frame(SessionRequestKind.END, self.number))

    def close(self) -> None:
        """Forget it; what still comes is dropped."""
        self._session.forget(self)


class ClientSession:
    """One connection of a client that builds."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._sock: socket.socket | None = None
        self._streams: dict[int, SessionStream] = {}
        self._number = 0
        self._sending = asyncio.Lock()
        self._open = asyncio.Event()
        self._closed = False

    async def run(self, sock: socket.socket, early: bytes) -> None:
        """Read what the client says until it leaves."""
        sock.setblocking(False)
        self._sock = sock
        self._open.set()
        loop = asyncio.get_running_loop()
        pending = bytearray(early)
        try:
            while True:
                await self._take(pending)
                data = await loop.sock_recv(sock, protocol.PAYLOAD_LIMIT)
                if not data:
                    return
                pending += data
        except (OSError, protocol.BadFrame):
            return
        finally:
            self.close()

    async def _take(self, pending: bytearray) -> None:
        while len(pending) >= protocol.HEADER_SIZE:
            kind, number, length = protocol.decode_header(bytes(pending[: protocol.HEADER_SIZE]))
            end = protocol.HEADER_SIZE + length
            if len(pending) < end:
                return
            payload = bytes(pending[protocol.HEADER_SIZE : end])
            del pending[:end]
            stream = self._streams.get(number)
            if stream is not None:
                await stream.frames.put((kind, payload))

    def close(self) -> None:
        """Whoever waits for something gets an error."""
        self._closed = True
        self._open.set()
        for stream in self._streams.values():
            while stream.frames.full():
                stream.frames.get_nowait()
            stream.frames.put_nowait((SessionRequestKind.FAIL, _GONE.encode()))

    def forget(self, stream: SessionStream) -> None:
        """A stream is over; the reader may be waiting for room in it."""
        self._streams.pop(stream.number, None)
        while not stream.frames.empty():
            stream.frames.get_nowait()

    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises :class:`Unavailable`."""
        if self._closed or self._sock is None:
            raise Unavailable(_GONE)
        async with self._sending:
            try:
                await asyncio.get_running_loop().sock_sendall(self._sock, frame)
            except OSError as error:
                raise Unavailable(f"{_GONE}: {error.strerror}") from error

    async def ask(self, kind: SessionRequestKind, id: str) -> SessionStream:
        """Open a stream. Raises :class:`Unavailable`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._open.wait(), _PATIENCE)
        self._number += 1
        stream = self._streams[self._number] = SessionStream(self, self._number)
        try:
            await self.send(protocol.encode_request(kind, stream.number, id))
        except BaseException:
            stream.close()
            raise
        return stream

    async def secret(self, id: str) -> bytes | None:
        """The bytes of a secret, None where the client has none of that name."""
        stream = await self.ask(SessionRequestKind.SECRET, id)
        try:
            return await asyncio.wait_for(_whole(stream, id), _ANSWER)
        except NotFound:
            return None
        except TimeoutError:
            raise Unavailable(f"the client does not send the secret {id!r}") from None
        finally:
            stream.close()


async def _whole(stream: SessionStream, id: str) -> bytes:
    content = bytearray()
    async for piece in stream.data():
        content += piece
        if len(content) > protocol.SECRET_LIMIT:
            raise InvalidRequest(
                f"the secret {id!r} has more than {protocol.SECRET_LIMIT} bytes",
                hint="that is the limit",
            )
    return bytes(content)


class ClientSessions:
    """The sessions of an engine, by their ids."""

    def __init__(self) -> None:
        self._sessions: dict[str, ClientSession] = {}
        self._news = asyncio.Condition()

    async def serve(self, id: str, owner: str, descriptor: int, early: bytes) -> None:
        """Keep a session for as long as its client is there; ``descriptor`` is ours.

        :raises InvalidRequest: the id is none.
        :raises Conflict: it is in use.
        """
        with socket.socket(fileno=descriptor) as sock:
            check_id(id)
            if id in self._sessions:
                raise Conflict("there is a session of that id already")
            session = self._sessions[id] = ClientSession(owner)
            try:
                async with self._news:
                    self._news.notify_all()
                await session.run(sock, early)
            finally:
                session.close()
                self._sessions.pop(id, None)

    async def find(self, id: str, owner: str) -> ClientSession:
        """The session of a build; it may come a moment after the build.

        :raises NotFound: there is none of that id, or it is another caller's.
        """
        check_id(id)

        async def wait() -> ClientSession:
            async with self._news:
                await self._news.wait_for(lambda: id in self._sessions)
                return self._sessions[id]

        try:
            session = await asyncio.wait_for(wait(), _PATIENCE)
        except TimeoutError:
            session = None
        if session is None or session.owner != owner:
            raise NotFound("there is no such session", hint="open it before the build")
        return session

    def close(self) -> None:
        """End all."""
        for session in tuple(self._sessions.values()):
            session.close()


def check_id(id: str) -> None:
    """Raise unless it is one that cannot be guessed."""
    if not 32 <= len(id) <= 64 or id.strip("0123456789abcdef"):
        raise InvalidRequest("a session's id is 32 to 64 hexadecimal digits, chosen at random")
