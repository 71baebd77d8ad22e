"""Blobs in the content stores of a client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from harness.content_service import SERVICE, ContentService, digest_of
from jaula.errors import InvalidRequest, NotFound, Unavailable
from jaula.features.build.builder.build_session import ContentStore
from jaula.features.build.buildkit.buildkit_session import LIMITS, ClientSession
from jaula.features.build.buildkit.proto import session_pb2
from jaula.grpc.grpc_client import Channel
from jaula.grpc.grpc_server import Call, Method, Server
from jaula.grpc.grpc_status import Code, GrpcError
from jaula.grpc.http2_connection import Limits
from jaula.spec.image_documents import LAYER_TAR, Descriptor
from jaula.spec.protobuf import decoder

DATA = bytes(range(256)) * 12_000  # three messages of a write


def asked(methods: dict[str, Method], test: Callable[[ContentStore], Awaitable[None]]) -> None:
    """Run a test with the store ``local:/cache`` of a client that has these methods."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            client = asyncio.ensure_future(Server(methods, Limits()).serve(theirs))
            channel = Channel(LIMITS)
            running = asyncio.ensure_future(channel.run(ours))
            session = ClientSession("0", "key", channel)
            try:
                await asyncio.wait_for(test(session.content_store("local:/cache")), 20)
            finally:
                session.close()
                await running
                ours.close()
                await client

    asyncio.run(run())


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), 70_000):
        yield data[offset : offset + 70_000]


async def read_all(store: ContentStore, digest: str, size: int) -> bytes:
    return b"".join([part async for part in store.read(digest, size)])


def blob(data: bytes) -> Descriptor:
    return Descriptor(LAYER_TAR, digest_of(data), len(data))


@pytest.mark.parametrize("data", [DATA, b"", b"x" * (1 << 20)])
def test_a_blob_is_written_once_and_read_again(data: bytes) -> None:
    service = ContentService({"local:/cache": {}})

    async def test(store: ContentStore) -> None:
        assert await store.write(blob(data), chunks(data))
        assert not await store.write(blob(data), chunks(data))
        assert await store.size(digest_of(data)) == len(data)
        assert await read_all(store, digest_of(data), len(data)) == data

    asked(service.methods(), test)
    assert service.writes == [digest_of(data)]


def test_a_blob_or_a_store_that_is_absent_is_not_found() -> None:
    async def test(store: ContentStore) -> None:
        with pytest.raises(NotFound):
            await store.size(digest_of(b""))
        with pytest.raises(NotFound):
            await anext(store.read(digest_of(b""), 0))

    asked(ContentService({"local:/cache": {}}).methods(), test)
    asked(ContentService({}).methods(), test)
    asked({}, test)


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 0])
def test_a_blob_of_another_size_is_refused(size: int) -> None:
    async def test(store: ContentStore) -> None:
        with pytest.raises(InvalidRequest, match="does not have"):
            await read_all(store, digest_of(DATA), size)

    asked(ContentService({"local:/cache": {digest_of(DATA): DATA}}).methods(), test)


def test_a_write_that_the_client_refuses_fails() -> None:
    async def test(store: ContentStore) -> None:
        wrong = Descriptor(LAYER_TAR, digest_of(b"other"), len(DATA))
        with pytest.raises(Unavailable, match="unexpected commit digest"):
            await store.write(wrong, chunks(DATA))

    asked(ContentService({"local:/cache": {}}).methods(), test)


def test_a_client_that_ends_a_call_early_or_sends_garbage_fails_it() -> None:
    async def end(call: Call) -> AsyncIterator[session_pb2.WriteContentResponse]:
        for response in list[session_pb2.WriteContentResponse]():
            yield response

    class Garbage:
        def SerializeToString(self) -> bytes:
            return b"\xff\xff\xff"

    async def garbage(call: Call) -> AsyncIterator[Garbage]:
        await call.receive()
        yield Garbage()

    async def full(call: Call) -> AsyncIterator[session_pb2.WriteContentResponse]:
        await call.receive()
        raise GrpcError(Code.RESOURCE_EXHAUSTED, "no space left")
        yield session_pb2.WriteContentResponse()

    async def ended(store: ContentStore) -> None:
        with pytest.raises(Unavailable):
            await store.write(blob(DATA), chunks(DATA))

    async def damaged(store: ContentStore) -> None:
        with pytest.raises(InvalidRequest, match="damaged message"):
            await store.size(digest_of(DATA))
        with pytest.raises(InvalidRequest, match="damaged message"):
            await anext(store.read(digest_of(DATA), 1))

    async def exhausted(store: ContentStore) -> None:
        with pytest.raises(Unavailable, match="no space left"):
            await store.write(blob(DATA), chunks(DATA))

    write = decoder(session_pb2.WriteContentRequest)
    asked({SERVICE + "Write": Method(write, streaming=end)}, ended)
    asked({SERVICE + "Write": Method(write, streaming=full)}, exhausted)
    read = decoder(session_pb2.ReadContentRequest)
    methods = {SERVICE + name: Method(read, streaming=garbage) for name in ("Info", "Read")}
    asked(methods, damaged)


@pytest.mark.parametrize("name", ["local:a\nx: y", "local:\0", "local:" + "x" * 5000])
def test_a_name_that_no_header_can_carry_is_refused(name: str) -> None:
    session = ClientSession("0", "key", Channel(LIMITS))
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        session.content_store(name)
