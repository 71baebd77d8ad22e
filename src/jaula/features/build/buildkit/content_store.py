"""Blobs in a content store of the client: the service that it offers on its session.

Clients offer a store for each local cache and for each OCI layout that is a context. The store is
a directory of theirs, an OCI image layout. The engine reads and writes blobs by digest; the client
writes ``index.json``.

What the client sends is input: sizes are limited here, and the caller compares digests.

Source: containerd ``api/services/content/v1/content.proto`` and ``core/content/proxy`` (the order
of the messages), moby/buildkit ``session/content`` (the metadata that selects a store).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from jaula.errors import Conflict, InvalidRequest, Unavailable
from jaula.features.build.buildkit.proto import session_pb2
from jaula.features.build.buildkit.session_stream import receive, send
from jaula.spec.protobuf import Kind, decoder

if TYPE_CHECKING:
    from jaula.grpc.http2_connection import Stream
    from jaula.spec.image_documents import Descriptor

_SERVICE = "/containerd.services.content.v1.Content/"
_STORE = "buildkit-attachable-store-id"
_CHUNK = 1 << 20  # bytes of one message
_MAX_ID = 4096  # bytes
_WRITE = session_pb2.WriteContentRequest.WRITE
_COMMIT = session_pb2.WriteContentRequest.COMMIT


class ClientContentStore:
    """A content store of a client. ``open_stream`` begins a call on its session.

    :raises InvalidRequest: when ``id`` cannot be sent to the client.
    """

    def __init__(
        self, open_stream: Callable[[str, tuple[tuple[str, str], ...]], Stream], id: str
    ) -> None:
        if not id.isprintable() or len(id.encode()) > _MAX_ID:
            raise InvalidRequest(
                f"the name {id[:64]!r} of a client's directory cannot be sent in a header",
                hint="use a path without control characters",
            )
        self._open_stream = open_stream
        self._metadata = ((_STORE, id),)

    def _open(self, method: str) -> Stream:
        return self._open_stream(_SERVICE + method, self._metadata)

    async def size(self, digest: str) -> int:
        """Return the size of a blob in bytes.

        :raises NotFound: when the store does not have it.
        """
        stream = self._open("Info")
        try:
            await send(stream, session_pb2.BlobInfoRequest(digest=digest).SerializeToString())
            stream.end()
            data = await receive(stream)
            if data is None:
                raise Unavailable("the client does not describe a blob")
        finally:
            stream.close()
        return int(_decoded(session_pb2.BlobInfoResponse, data).info.size)

    async def read(self, digest: str, size: int) -> AsyncIterator[bytes]:
        """Yield the content of a blob of ``size`` bytes. The caller verifies the digest.

        :raises NotFound: when the store does not have it.
        :raises InvalidRequest: when it has another size.
        """
        stream = self._open("Read")
        received = 0
        try:
            await send(stream, session_pb2.ReadContentRequest(digest=digest).SerializeToString())
            stream.end()
            while (data := await receive(stream)) is not None:
                part = _decoded(session_pb2.ReadContentResponse, data).data
                received += len(part)
                if received > size:
                    break
                yield part
        finally:
            stream.close()
        if received != size:
            raise InvalidRequest(
                f"the client's blob {digest} does not have the {size} bytes that its manifest "
                "states"
            )

    async def write(self, blob: Descriptor, chunks: AsyncIterator[bytes]) -> bool:
        """Write a blob, which the client verifies. Return False if the store has it already."""
        stream = self._open("Write")
        try:
            await _write(stream, blob, chunks)
        except Conflict:
            return False
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]
            stream.close()
        return True


async def _write(stream: Stream, blob: Descriptor, chunks: AsyncIterator[bytes]) -> None:
    """Send a blob in messages, each of which the client answers.

    :raises Conflict: when the client has the blob.
    """
    # The reference is the one that BuildKit uses, so an interrupted write is replaced.
    request = session_pb2.WriteContentRequest(
        action=session_pb2.WriteContentRequest.STAT,
        ref=blob.digest,
        total=blob.size,
        expected=blob.digest,
    )
    await _exchange(stream, request)
    offset = 0
    pending = bytearray()
    async for chunk in chunks:
        pending += chunk
        while len(pending) >= _CHUNK:
            part = bytes(pending[:_CHUNK])
            del pending[:_CHUNK]
            await _exchange(
                stream, session_pb2.WriteContentRequest(action=_WRITE, offset=offset, data=part)
            )
            offset += len(part)
    await _exchange(
        stream,
        session_pb2.WriteContentRequest(
            action=_COMMIT,
            offset=offset,
            data=bytes(pending),
            total=blob.size,
            expected=blob.digest,
        ),
    )


async def _exchange(stream: Stream, request: session_pb2.WriteContentRequest) -> None:
    await send(stream, request.SerializeToString())
    if request.action == _COMMIT:
        stream.end()
    if await receive(stream) is None:
        raise Unavailable("the client ended the write of a blob")


def _decoded(kind: type[Kind], data: bytes) -> Kind:
    try:
        return decoder(kind)(data)
    except ValueError as error:
        raise InvalidRequest(f"the client sent a damaged message: {error}") from None
