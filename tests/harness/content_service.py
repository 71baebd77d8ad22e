"""A client's content service in memory: the calls of ``containerd.services.content.v1.Content``."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from jaula.features.build.buildkit.proto import session_pb2
from jaula.grpc.grpc_server import Call, Method
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.spec.protobuf import decoder

SERVICE = "/containerd.services.content.v1.Content/"
Blobs = dict[str, bytes]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class ContentService:
    """The stores of one client by name. ``sizes`` replaces the sizes that it states."""

    def __init__(self, stores: dict[str, Blobs]) -> None:
        self.stores = stores
        self.sizes: dict[str, int] = {}
        self.writes: list[str] = []

    def methods(self) -> dict[str, Method]:
        return {
            SERVICE + "Info": Method(decoder(session_pb2.BlobInfoRequest), unary=self._info),
            SERVICE + "Read": Method(decoder(session_pb2.ReadContentRequest), streaming=self._read),
            SERVICE + "Write": Method(
                decoder(session_pb2.WriteContentRequest), streaming=self._write
            ),
        }

    def _store(self, call: Call) -> Blobs:
        store = self.stores.get(call.headers["buildkit-attachable-store-id"])
        if store is None:
            raise GrpcError(Code.NOT_FOUND, "unknown store")
        return store

    def _blob(self, call: Call, digest: str) -> bytes:
        store = self._store(call)
        if digest not in store:
            raise GrpcError(Code.NOT_FOUND, f"blob {digest} not found")
        return store[digest]

    async def _info(
        self, call: Call, request: session_pb2.BlobInfoRequest
    ) -> session_pb2.BlobInfoResponse:
        data = self._blob(call, request.digest)
        size = self.sizes.get(request.digest, len(data))
        return session_pb2.BlobInfoResponse(
            info=session_pb2.BlobInfo(digest=request.digest, size=size)
        )

    async def _read(self, call: Call) -> AsyncIterator[session_pb2.ReadContentResponse]:
        request = await call.request()
        data = self._blob(call, request.digest)
        for offset in range(0, len(data), 100_000):
            yield session_pb2.ReadContentResponse(
                offset=offset, data=data[offset : offset + 100_000]
            )

    async def _write(self, call: Call) -> AsyncIterator[session_pb2.WriteContentResponse]:
        store, data, expected = self._store(call), bytearray(), ""
        async for request in _requests(call):
            expected = request.expected or expected
            if expected in store:
                raise GrpcError(Code.ALREADY_EXISTS, "it exists")
            if request.action != session_pb2.WriteContentRequest.STAT:
                assert request.offset == len(data)
                data += request.data
            if request.action == session_pb2.WriteContentRequest.COMMIT:
                if digest_of(bytes(data)) != expected or request.total != len(data):
                    raise GrpcError(Code.FAILED_PRECONDITION, "unexpected commit digest")
                store[expected] = bytes(data)
                self.writes.append(expected)
            yield session_pb2.WriteContentResponse(action=request.action, offset=len(data))
            if request.action == session_pb2.WriteContentRequest.COMMIT:
                return


async def _requests(call: Call) -> AsyncIterator[session_pb2.WriteContentRequest]:
    while (request := await call.receive()) is not None:
        yield request
