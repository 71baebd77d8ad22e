"""jaula's own form of a build session (:mod:`.session_protocol`), and all open sessions.

A session belongs to the caller that opened it: only a build of the same caller may use it. The data
of a session is held in memory only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaula.errors import Conflict, InvalidRequest, NotFound, Unavailable
from jaula.features.build import session_protocol
from jaula.features.build.session_protocol import SessionRequestKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.features.build.builder.build_session import BuildSession
    from jaula.images.registry.cancellation import Cancellation

_OPEN_TIMEOUT = 5.0  # seconds for a session to be opened after the build that names it
_SECRET_TIMEOUT = 60.0  # seconds
_MAX_UNREAD = 16  # frames of one stream
_GONE = "the client's session is gone"


class SessionStream:
    """The client's answer to one request of the engine."""

    def __init__(self, session: ClientSession, number: int) -> None:
        self._session = session
        self.number = number
        self.frames: asyncio.Queue[tuple[SessionRequestKind, bytes]] = asyncio.Queue(_MAX_UNREAD)

    async def data(self) -> AsyncIterator[bytes]:
        """Yield the bytes that the client sends until its END.

        :raises NotFound: when the client does not have the object.
        :raises Unavailable: when the client failed or the session is gone.
        """
        while True:
            kind, payload = await self.frames.get()
            if kind is SessionRequestKind.DATA:
                yield payload
            elif kind is SessionRequestKind.END:
                return
            else:
                text = payload.decode(errors="replace")[:200]
                if text == session_protocol.UNKNOWN:
                    raise NotFound("the client does not have an object of this name")
                raise Unavailable(f"the client reports: {text}")

    async def send(self, data: bytes) -> None:
        """Send bytes to the client."""
        for start in range(0, len(data), session_protocol.PAYLOAD_LIMIT):
            chunk = data[start : start + session_protocol.PAYLOAD_LIMIT]
            await self._session.send(
                session_protocol.encode_frame(SessionRequestKind.DATA, self.number, chunk)
            )

    async def end(self) -> None:
        """Tell the client that no more bytes follow."""
        await self._session.send(session_protocol.encode_frame(SessionRequestKind.END, self.number))

    def close(self) -> None:
        """Remove the stream; frames that still arrive are dropped."""
        self._session.remove(self)


class ClientSession:
    """One session connection of a client."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self._sock: socket.socket | None = None
        self._streams: dict[int, SessionStream] = {}
        self._number = 0
        self._sending = asyncio.Lock()
        self._opened = asyncio.Event()
        self._closed = False

    async def run(self, sock: socket.socket, early: bytes) -> None:
        """Read frames until the client closes the connection. ``early`` was received already."""
        sock.setblocking(False)
        self._sock = sock
        self._opened.set()
        loop = asyncio.get_running_loop()
        pending = bytearray(early)
        try:
            while True:
                await self._dispatch(pending)
                data = await loop.sock_recv(sock, session_protocol.PAYLOAD_LIMIT)
                if not data:
                    return
                pending += data
        except (OSError, session_protocol.BadFrame):
            return
        finally:
            self.close()

    async def _dispatch(self, pending: bytearray) -> None:
        while len(pending) >= session_protocol.HEADER_SIZE:
            kind, number, length = session_protocol.decode_header(
                bytes(pending[: session_protocol.HEADER_SIZE])
            )
            end = session_protocol.HEADER_SIZE + length
            if len(pending) < end:
                return
            payload = bytes(pending[session_protocol.HEADER_SIZE : end])
            del pending[:end]
            stream = self._streams.get(number)
            if stream is not None:
                await stream.frames.put((kind, payload))

    def close(self) -> None:
        """Close the session; every stream that waits for data fails."""
        self._closed = True
        self._opened.set()
        for stream in self._streams.values():
            while stream.frames.full():
                stream.frames.get_nowait()
            stream.frames.put_nowait((SessionRequestKind.FAIL, _GONE.encode()))

    def remove(self, stream: SessionStream) -> None:
        """Remove a stream. Empty its queue, since the reader may wait for room in it."""
        self._streams.pop(stream.number, None)
        while not stream.frames.empty():
            stream.frames.get_nowait()

    async def send(self, frame: bytes) -> None:
        """Send one frame.

        :raises Unavailable: when the session is gone.
        """
        if self._closed or self._sock is None:
            raise Unavailable(_GONE)
        async with self._sending:
            try:
                await asyncio.get_running_loop().sock_sendall(self._sock, frame)
            except OSError as error:
                raise Unavailable(f"{_GONE}: {error.strerror}") from error

    async def open_stream(self, kind: SessionRequestKind, id: str) -> SessionStream:
        """Request an object of the client and return the stream of the answer.

        :raises Unavailable: when the session is gone.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._opened.wait(), _OPEN_TIMEOUT)
        self._number += 1
        stream = self._streams[self._number] = SessionStream(self, self._number)
        try:
            await self.send(session_protocol.encode_request(kind, stream.number, id))
        except BaseException:
            stream.close()
            raise
        return stream

    async def secret(self, id: str) -> bytes | None:
        """Return the bytes of a secret; None if the client does not have it.

        :raises Unavailable: when the client does not answer in time.
        :raises InvalidRequest: when the secret is too large.
        """
        stream = await self.open_stream(SessionRequestKind.SECRET, id)
        try:
            return await asyncio.wait_for(_read_secret(stream, id), _SECRET_TIMEOUT)
        except NotFound:
            return None
        except TimeoutError:
            raise Unavailable(f"the client did not send the secret {id!r} in time") from None
        finally:
            stream.close()

    async def has_agent(self, id: str) -> bool:
        """Return True: a client answers when its agent is used."""
        return True

    async def open_agent(self, id: str) -> SessionStream:
        """Connect to the client's ssh agent.

        :raises Unavailable: when the session is gone.
        """
        return await self.open_stream(SessionRequestKind.SSH, id)

    async def receive_context(self, name: str, path: str, cancel: Cancellation) -> None:
        """Receive a named context of the client.

        :raises InvalidRequest: when the client does not have it.
        """
        from jaula.features.build.builder.build_sources import unpack_context

        stream = await self.open_stream(SessionRequestKind.CONTEXT, name)
        try:
            await unpack_context(stream.data(), path, cancel)
        except NotFound:
            raise InvalidRequest(
                f"there is no context {name!r}", hint=f"add --build-context {name}=DIRECTORY"
            ) from None
        finally:
            stream.close()


async def _read_secret(stream: SessionStream, id: str) -> bytes:
    content = bytearray()
    async for chunk in stream.data():
        content += chunk
        if len(content) > session_protocol.SECRET_LIMIT:
            raise InvalidRequest(
                f"the secret {id!r} is larger than the limit of "
                f"{session_protocol.SECRET_LIMIT} bytes"
            )
    return bytes(content)


class ClientSessions:
    """The build sessions of an engine, by id."""

    def __init__(self) -> None:
        self._sessions: dict[str, BuildSession] = {}
        self._added = asyncio.Condition()

    async def serve(self, id: str, owner: str, descriptor: int, early: bytes) -> None:
        """Serve a session until its client leaves. This owns ``descriptor``.

        :raises InvalidRequest: when the id is malformed.
        :raises Conflict: when the id is in use.
        """
        with socket.socket(fileno=descriptor) as sock:
            session = ClientSession(owner)
            with self.opened(id, session):
                await self.announce()
                await session.run(sock, early)

    @contextmanager
    def opened(self, id: str, session: BuildSession) -> Iterator[None]:
        """Let builds find a session during the block; close it at the end.

        :raises InvalidRequest: when the id is malformed.
        :raises Conflict: when the id is in use.
        """
        check_id(id)
        if id in self._sessions:
            raise Conflict("a session of this id exists already")
        self._sessions[id] = session
        try:
            yield
        finally:
            session.close()
            self._sessions.pop(id, None)

    async def announce(self) -> None:
        """Wake the builds that wait for a session."""
        async with self._added:
            self._added.notify_all()

    async def find(self, id: str, owner: str) -> BuildSession:
        """Return the session of a build; wait a moment for it to be opened.

        :raises NotFound: when no session has this id, or it belongs to another caller.
        """
        check_id(id)

        async def wait() -> BuildSession:
            async with self._added:
                await self._added.wait_for(lambda: id in self._sessions)
                return self._sessions[id]

        try:
            session = await asyncio.wait_for(wait(), _OPEN_TIMEOUT)
        except TimeoutError:
            session = None
        if session is None or session.owner != owner:
            raise NotFound("no such session", hint="open it before the build")
        return session

    def close(self) -> None:
        """Close all sessions."""
        for session in tuple(self._sessions.values()):
            session.close()


def check_id(id: str) -> None:
    """Check that an id is long enough to be impossible to guess.

    jaula's clients send 32 or more hexadecimal digits, BuildKit's 25 digits of base 36.

    :raises InvalidRequest: when it is not 25 to 64 digits and lower-case letters.
    """
    if not 25 <= len(id) <= 64 or id.strip("0123456789abcdefghijklmnopqrstuvwxyz"):
        raise InvalidRequest(
            "the id of a session must be 25 to 64 random digits and lower-case letters"
        )
