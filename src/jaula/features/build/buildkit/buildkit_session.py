"""BuildKit's form of a build session: gRPC calls to services of the client.

The client opens the connection (``POST /session``) and is the server on it. Its answers are input:
each call has a time-out for a client that is silent, and limits for what it may send.

Source: moby/buildkit ``session``: paths of the methods, names of the metadata.
"""

from __future__ import annotations

import asyncio
import os
import queue
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from jaula.engine.threads import in_own_thread, shielded
from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable
from jaula.features.build.buildkit.content_store import ClientContentStore
from jaula.features.build.buildkit.file_receiver import FileReceiver
from jaula.features.build.buildkit.file_sender import FileSender, fin
from jaula.features.build.buildkit.proto import session_pb2
from jaula.features.build.buildkit.session_stream import (
    IDLE_TIMEOUT,
    as_engine_error,
    receive,
    send,
    send_all,
)
from jaula.features.build.session_protocol import SECRET_LIMIT
from jaula.grpc.grpc_client import Channel
from jaula.grpc.grpc_status import GrpcError
from jaula.grpc.http2_connection import Limits
from jaula.spec.api_documents import RegistryAuth
from jaula.spec.protobuf import Kind, decoder
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from jaula.features.build.builder.build_session import ExtraFile, Report
    from jaula.grpc.grpc_server import Message
    from jaula.grpc.http2_connection import Stream
    from jaula.images.registry.cancellation import Cancellation

LIMITS = Limits(streams=0, message=4 << 20, window=6 << 20)

_CALL_TIMEOUT = 60.0  # seconds for an answer
_PROGRESS_INTERVAL = 0.2  # seconds between two reports of a transfer
_SEND_CHUNK = 1 << 20  # bytes of one message of a file
_MAX_KEY = 1024  # characters
_UPLOAD_LIMIT = 64 << 30  # bytes
_DIFF_COPY, _SEND_DIFF_COPY = (
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
)
_HUB, _HUB_HOST = "docker.io", "registry-1.docker.io"


class ClientSession:
    """One session connection of a client."""

    def __init__(self, owner: str, shared_key: str, channel: Channel) -> None:
        self._owner = owner
        self._shared_key = shared_key[:_MAX_KEY]
        self._channel = channel

    @property
    def owner(self) -> str:
        return self._owner

    @property
    def shared_key(self) -> str:
        return self._shared_key

    def close(self) -> None:
        """End the connection; every request fails."""
        self._channel.close()

    # -- values ----------------------------------------------------------------------------------

    async def secret(self, id: str) -> bytes | None:
        """Return the bytes of a secret; None if the client does not have it."""
        request = session_pb2.GetSecretRequest(ID=id)
        try:
            answer = await self._unary(
                "/moby.buildkit.secrets.v1.Secrets/GetSecret",
                request,
                session_pb2.GetSecretResponse,
            )
        except NotFound:
            return None
        if len(answer.data) > SECRET_LIMIT:
            raise InvalidRequest(
                f"the secret {id!r} is larger than the limit of {SECRET_LIMIT} bytes"
            )
        return answer.data

    async def credentials(self, domain: str) -> RegistryAuth | None:
        """Return the client's credentials of a registry; None without any."""
        host = _HUB_HOST if domain == _HUB else domain
        try:
            answer = await self._unary(
                "/moby.filesync.v1.Auth/Credentials",
                session_pb2.CredentialsRequest(Host=host),
                session_pb2.CredentialsResponse,
            )
        except NotFound:
            return None
        if not answer.Secret:
            return None
        if not answer.Username:
            return RegistryAuth(identity_token=answer.Secret)
        return RegistryAuth(username=answer.Username, password=answer.Secret)

    async def has_agent(self, id: str) -> bool:
        """Return whether the client forwards an ssh agent of this id."""
        try:
            await self._unary(
                "/moby.sshforward.v1.SSH/CheckAgent",
                session_pb2.CheckAgentRequest(ID=id),
                session_pb2.CheckAgentResponse,
            )
        except JaulaError as error:
            if isinstance(error, Unavailable) and error.hint:
                raise  # the session is gone
            return False
        return True

    async def _unary(self, path: str, request: Message, response: type[Kind]) -> Kind:
        try:
            return await self._channel.unary(path, request, decoder(response), _CALL_TIMEOUT)
        except GrpcError as error:
            raise as_engine_error(error) from None

    async def open_agent(self, id: str) -> _AgentStream:
        """Connect to the client's ssh agent."""
        return _AgentStream(
            self._open("/moby.sshforward.v1.SSH/ForwardAgent", (("buildkit.ssh.id", id),))
        )

    def _open(self, path: str, metadata: Iterable[tuple[str, str]]) -> Stream:
        try:
            return self._channel.open(path, metadata)
        except GrpcError as error:
            raise as_engine_error(error) from None

    async def upload(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield what the client's standard input has, which it offers under a path."""
        metadata = (("urlpath", path), ("urlhost", UPLOAD_HOST))
        stream = self._open("/moby.upload.v1.Upload/Pull", metadata)
        received = 0
        decode = decoder(session_pb2.BytesMessage)
        try:
            while (message := await receive(stream)) is not None:
                data = decode(message).data
                received += len(data)
                if received > _UPLOAD_LIMIT:
                    raise InvalidRequest(f"the upload exceeds the limit of {_UPLOAD_LIMIT} bytes")
                yield data
        finally:
            stream.close()

    # -- directories -------------------------------------------------------------------------------

    async def receive_context(self, name: str, path: str, cancel: Cancellation) -> None:
        """Receive a named directory of the client."""
        await self.receive_directory(name, path, (), (), "", _no_report)

    async def receive_files(self, name: str, path: str, only: tuple[str, ...]) -> None:
        """Receive some files of a directory, those that exist."""
        await self._receive(name, path, [("followpaths", only)], "", _no_report)

    async def receive_directory(
        self,
        name: str,
        path: str,
        only: tuple[str, ...],
        excluded: tuple[str, ...],
        previous: str,
        report: Report,
    ) -> None:
        """Receive a directory without the paths that ignore patterns exclude."""
        options = [("followpaths", only), ("exclude-patterns", excluded)]
        await self._receive(name, path, options, previous, report)

    async def _receive(
        self,
        name: str,
        path: str,
        options: list[tuple[str, tuple[str, ...]]],
        previous: str,
        report: Report,
    ) -> None:
        options = [*options, ("dir-name", (name,))]
        metadata = [pair for key, values in options for pair in _encode(key, values)]
        stream = self._open(_DIFF_COPY, metadata)
        transfer = _Transfer(stream, path, previous)
        try:
            await transfer.run(report)
        except NotFound:
            raise InvalidRequest(f"the client has no directory {name[:64]!r}") from None
        finally:
            stream.close()

    # -- content stores --------------------------------------------------------------------------

    def content_store(self, id: str) -> ClientContentStore:
        """Return a content store of the client by its name, whether it exists or not."""
        return ClientContentStore(self._open, id)

    # -- results ---------------------------------------------------------------------------------

    async def send_file(
        self, export: int, metadata: Mapping[str, str], chunks: AsyncIterator[bytes]
    ) -> None:
        """Send a file to the destination of an export."""
        headers = [(f"exporter-md-{key}", value) for key, value in metadata.items()]
        stream = self._open(_SEND_DIFF_COPY, [*headers, (_EXPORT_ID, str(export))])
        try:
            pending = bytearray()
            async for chunk in chunks:
                pending += chunk
                while len(pending) >= _SEND_CHUNK:
                    await send(stream, _bytes_message(bytes(pending[:_SEND_CHUNK])))
                    del pending[:_SEND_CHUNK]
            if pending:
                await send(stream, _bytes_message(bytes(pending)))
            stream.end()
            while await receive(stream) is not None:
                pass  # the end is the client's acknowledgement
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]
            stream.close()

    async def send_directory(
        self, export: int, root: int, prefix: str, files: Sequence[ExtraFile]
    ) -> None:
        """Send the files below a directory, a descriptor, to the destination of an export."""
        stream = self._open(_SEND_DIFF_COPY, [(_EXPORT_ID, str(export))])
        sender = FileSender(root, prefix.encode(), files)
        try:
            sending = asyncio.ensure_future(send_all(stream, sender.entries()))
            try:
                while True:
                    message = await receive(stream)
                    if message is None:
                        raise Unavailable("the client ended the transfer")
                    await asyncio.sleep(0)
                    content = sender.content(message)
                    if content is None:
                        await sending
                        await send(stream, fin())
                        break
                    await send_all(stream, content)
                stream.end()
                while await receive(stream) is not None:
                    pass
            finally:
                sending.cancel()
                await asyncio.wait((sending,))
        finally:
            stream.close()


_EXPORT_ID = "buildkit-attachable-exporter-id"
UPLOAD_HOST = "buildkit-session"
"""The host of an address that stands for the client's standard input."""


class _AgentStream:
    """A connection to the client's ssh agent."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def data(self) -> AsyncIterator[bytes]:
        decode = decoder(session_pb2.BytesMessage)
        try:
            while (message := await self._stream.receive()) is not None:
                yield decode(message).data
        except GrpcError as error:
            raise as_engine_error(error) from None

    async def send(self, data: bytes) -> None:
        await send(self._stream, _bytes_message(data))

    async def end(self) -> None:
        self._stream.end()

    def close(self) -> None:
        self._stream.close()


class _Transfer:
    """One directory that is received: packets go to a thread, its requests to the client.

    The thread waits for packets, so it is one of its own. The client's window bounds what is
    queued for it: packets are consumed when the thread has dealt with them.
    """

    def __init__(self, stream: Stream, path: str, previous: str) -> None:
        self._stream = stream
        self._path = path
        self._previous = previous
        self._queue: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._requests: list[bytes] = []
        self._requested = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._bytes = 0
        self._moved = time.monotonic()

    async def run(self, report: Report) -> None:
        """Receive all files.

        :raises InvalidRequest: when the client does not have the directory, or is hostile.
        :raises Unavailable: when it left or is silent.
        """
        work = in_own_thread(self._work)
        tasks = [
            asyncio.ensure_future(self._read()),
            asyncio.ensure_future(self._request()),
            asyncio.ensure_future(self._watch(report)),
        ]
        try:
            await asyncio.wait((work, *tasks), return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and not work.done():
                    task.result()
            while not work.done():  # the stream has ended: the thread has the rest
                await asyncio.wait((work, *tasks[1:]), return_when=asyncio.FIRST_COMPLETED)
                for task in tasks[1:]:
                    if task.done() and not work.done():
                        task.result()
            work.result()
            await report({"current": self._bytes})
        except GrpcError as error:
            raise as_engine_error(error) from None
        finally:
            self._queue.put(None)
            for task in tasks:
                task.cancel()
            await shielded(asyncio.wait((work, *tasks)))

    async def _read(self) -> None:
        while messages := await self._stream.receive_all():
            self._moved = time.monotonic()
            self._queue.put(messages)
        self._queue.put(None)

    async def _request(self) -> None:
        while True:
            await self._requested.wait()
            self._requested.clear()
            requests, self._requests = self._requests, []
            for message in requests:
                await self._stream.send(message)

    async def _watch(self, report: Report) -> None:
        reported = 0
        while True:
            await asyncio.sleep(_PROGRESS_INTERVAL)
            if time.monotonic() - self._moved > IDLE_TIMEOUT:
                raise Unavailable("the client does not send its files in time")
            if self._bytes != reported:
                reported = self._bytes
                await report({"current": reported})

    # -- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        outgoing: list[bytes] = []
        previous = -1
        if self._previous:
            try:
                previous = os.open(self._previous, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                previous = -1
        try:
            with open_directory(self._path) as root:
                receiver = FileReceiver(root, outgoing.append, previous)
                try:
                    self._receive(receiver, outgoing)
                finally:
                    receiver.close()
        finally:
            if previous >= 0:
                os.close(previous)

    def _receive(self, receiver: FileReceiver, outgoing: list[bytes]) -> None:
        while not receiver.done:
            messages = self._queue.get()
            if messages is None:
                raise Unavailable("the client ended the transfer")
            try:
                receiver.take(messages)
            except ValueError as error:  # of the decoder
                raise InvalidRequest(f"the client sent a damaged packet: {error}") from None
            self._bytes = receiver.bytes
            size = sum(map(len, messages)) + 5 * len(messages)
            self._loop.call_soon_threadsafe(self._took, size, outgoing[:])
            outgoing.clear()

    def _took(self, size: int, requests: list[bytes]) -> None:
        self._moved = time.monotonic()  # a slow disk is not a silent client
        self._stream.consume(size)
        if requests:
            self._requests += requests
            self._requested.set()


async def _no_report(document: Mapping[str, object]) -> None:
    """Drop the progress of a transfer that no step of the build shows."""


def _bytes_message(data: bytes) -> bytes:
    return session_pb2.BytesMessage(data=data).SerializeToString()


def _encode(key: str, values: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return metadata. Values that are not ASCII are escaped, as BuildKit's clients do. Pure."""
    if all(value.isascii() and value.isprintable() for value in values):
        return [(key, value) for value in values]
    pairs = [(key, quote_plus(os.fsencode(value))) for value in values]
    return [*pairs, (f"{key}-encoded", "1")]
