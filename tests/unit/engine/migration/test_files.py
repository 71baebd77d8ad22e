"""The connection of the files of a checkpoint, with honest and hostile peers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.certificates import Authority
from jaula import tls
from jaula.errors import InvalidRequest, JaulaError, RuntimeFailure
from jaula.features.migration import image_transfer, migrations
from jaula.features.migration.data_stream import CHUNK, DataWriter
from jaula.features.migration.image_transfer import FileReceiver, FileSender, split_zeros
from jaula.features.migration.migration_channel import LinkLost
from jaula.features.migration.migrations import Migration
from jaula.features.migration.target_engine import Incoming
from jaula.spec.api_params import Remote
from jaula.spec.migration import DATA_ACCEPTED, MAX_DATA, DataKind, ProtocolError, SentFile
from jaula.spec.migration import pack_data_head as head
from jaula.tls import TlsCodec

pytestmark = pytest.mark.needs("openssl")
NAME = b"pages-1.img"
LIMIT = 1 << 40  # bytes


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    place = authority.server()
    names = (authority.file, place / "cert.pem", place / "key.pem")
    server = tls.server_context(tls.TlsFiles(*(str(each) for each in names)))
    server.verify_mode = ssl.CERT_NONE
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return server, client


class Link:
    """Both ends of a connection after its handshake."""

    def __init__(self, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
        self.plain, other = socket.socketpair()
        self.codec = TlsCodec(contexts[0], server=True)
        thread = threading.Thread(target=self._handshake)
        thread.start()
        self.client = contexts[1].wrap_socket(other)
        thread.join()

    def _handshake(self) -> None:
        done = False
        while not done:
            self.codec.feed(self.plain.recv(1 << 16))
            done = self.codec.do_handshake()
            self.plain.sendall(self.codec.outgoing())

    def close(self) -> None:
        self.plain.close()
        self.client.close()


@pytest.fixture
def link(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Link]:
    made = Link(contexts)
    yield made
    made.close()


def receive(link: Link, target: Path, sends: Callable[[], None]) -> FileReceiver:
    """Receive what a thread sends; raise the failure of the receiver."""

    async def work() -> FileReceiver:
        receiver = FileReceiver(target, "", LIMIT)
        sending = asyncio.ensure_future(asyncio.to_thread(sends))
        async with asyncio.timeout(30):
            await receiver.serve(link.plain, link.codec)
            link.plain.close()
            await asyncio.gather(sending, return_exceptions=True)
        receiver.finished.result()
        return receiver

    return asyncio.run(work())


def transfer(link: Link, source: Path, target: Path) -> tuple[FileReceiver, tuple[SentFile, ...]]:
    """Send a directory with a sender that is complete from the start."""
    sent: list[tuple[SentFile, ...]] = []

    def sends() -> None:
        async def work() -> None:
            assert link.client.recv(1) == DATA_ACCEPTED
            sender = FileSender(DataWriter(link.client), source)
            sender.complete()
            try:
                sent.append(await sender.finished)
            finally:
                await sender.close()

        asyncio.run(work())

    return receive(link, target, sends), sent[0]


def await_file(path: Path) -> None:
    """Wait until a file exists, for 10 seconds at most."""
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def directory(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def test_what_arrives_is_what_was_sent(link: Link, tmp_path: Path) -> None:
    source, target = directory(tmp_path, "source"), directory(tmp_path, "target")
    random.seed(3)
    contents = {
        "pages-1.img": random.randbytes(3 * CHUNK + 17),
        "pages-2.img": bytes(5 * CHUNK + 1),
        "pages-3.img": random.randbytes(5) + bytes(CHUNK) + random.randbytes(1 << 16) + bytes(9),
        "core-1.img": b"core",
        "empty.img": b"",
        "affinity.json": b"{}",
    }
    for name, data in contents.items():
        (source / name).write_bytes(data)
    receiver, files = transfer(link, source, target)
    assert {each.name: each.size for each in files} == {n: len(d) for n, d in contents.items()}
    receiver.check(files)
    for name, data in contents.items():
        assert (target / name).read_bytes() == data
    assert (target / "pages-2.img").stat().st_blocks < 5 * CHUNK // 512  # zeros are holes
    for wrong in (files[1:], (*files[1:], SentFile(files[0].name, 1))):
        with pytest.raises(InvalidRequest):
            receiver.check(wrong)


def test_a_file_that_grows_is_sent_once_and_whole(link: Link, tmp_path: Path) -> None:
    source, target = directory(tmp_path, "source"), directory(tmp_path, "target")
    sent: list[tuple[SentFile, ...]] = []

    def sends() -> None:
        async def work() -> None:
            assert link.client.recv(1) == DATA_ACCEPTED
            sender = FileSender(DataWriter(link.client), source)
            with (source / "pages-1.img").open("wb") as file:
                for number in range(50):
                    file.write(b"%d " % number * 999)
                    file.flush()
                    await asyncio.sleep(0.001)
            (source / "before-1.pages-1.img").write_bytes(b"round")
            sender.add_round(1)
            (source / "pages-2.img").write_bytes(b"second")
            (source / "core-1.img").write_bytes(b"core")
            await asyncio.sleep(0.02)
            sender.complete()
            sent.append(await sender.finished)
            await sender.close()

        asyncio.run(work())

    receiver = receive(link, target, sends)
    receiver.check(sent[0])
    for each in source.iterdir():
        assert (target / each.name).read_bytes() == each.read_bytes()


def test_a_file_that_changes_after_it_was_sent_fails_the_migration(
    link: Link, tmp_path: Path
) -> None:
    source, target = directory(tmp_path, "source"), directory(tmp_path, "target")
    (source / "pages-1.img").write_bytes(b"pages")
    (source / "pages-2.img").write_bytes(b"pages")
    failures: list[BaseException] = []

    def sends() -> None:
        async def work() -> None:
            assert link.client.recv(1) == DATA_ACCEPTED
            sender = FileSender(DataWriter(link.client), source)
            await asyncio.to_thread(await_file, target / "pages-2.img")
            (source / "pages-1.img").write_bytes(b"more pages")
            sender.complete()
            try:
                await sender.finished
            except JaulaError as error:
                failures.append(error)
            await sender.close()

        asyncio.run(work())

    with pytest.raises(LinkLost):
        receive(link, target, sends)
    assert isinstance(failures[0], RuntimeFailure)
    assert "changed pages-1" in str(failures[0])


def test_a_sender_is_ended_while_the_target_takes_nothing(link: Link, tmp_path: Path) -> None:
    (tmp_path / "pages-1.img").write_bytes(os.urandom(8 << 20))

    async def work() -> None:
        sender = FileSender(DataWriter(link.client), tmp_path)
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        async with asyncio.timeout(5):
            await sender.close()
        assert time.monotonic() - begin < 2
        assert isinstance(sender.finished.exception(), LinkLost)

    asyncio.run(work())


def test_a_receiver_is_ended_while_the_source_is_silent(link: Link, tmp_path: Path) -> None:
    async def work() -> None:
        receiver = FileReceiver(tmp_path, "", LIMIT)
        serving = asyncio.ensure_future(receiver.serve(link.plain, link.codec))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await receiver.close()
            await serving
        assert receiver.finished.cancelled()

    asyncio.run(work())


def test_a_waiter_that_is_cancelled_does_not_end_the_thread(link: Link, tmp_path: Path) -> None:
    (tmp_path / "pages-1.img").write_bytes(os.urandom(8 << 20))

    async def work() -> None:
        sender = FileSender(DataWriter(link.client), tmp_path)
        waiting = asyncio.ensure_future(sender.wait())
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not sender.finished.done()
        await sender.close()
        assert isinstance(sender.finished.exception(), LinkLost)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("frames", "limit"),
    [
        (((DataKind.ZEROS, MAX_DATA),) * 3, 2 * MAX_DATA + 1),
        (((DataKind.ZEROS, MAX_DATA),), MAX_DATA - 1),
        (((DataKind.DATA, 100), (DataKind.ZEROS, 100)), 199),
        (((DataKind.DATA, 100),) * 2, 199),
        (((DataKind.ZEROS, 1),), 0),
        (((DataKind.ZEROS, 90), (DataKind.END, 0), (DataKind.NAME, 11), (DataKind.ZEROS, 11)), 100),
    ],
)
def test_files_are_not_larger_than_what_was_offered(
    link: Link, tmp_path: Path, frames: tuple[tuple[DataKind, int], ...], limit: int
) -> None:
    """Holes count: they need no disk, but whoever reads the file needs the time."""

    async def work() -> None:
        receiver = FileReceiver(tmp_path, "", limit)

        def client() -> None:
            with contextlib.suppress(OSError):
                link.client.recv(len(DATA_ACCEPTED))
                link.client.sendall(FILE)
                for kind, size in frames:
                    data = b"pages-2.img" if kind is DataKind.NAME else bytes(size)
                    link.client.sendall(head(kind, size))
                    if kind is not DataKind.ZEROS:
                        link.client.sendall(data)
                while link.client.recv(1):
                    pass

        async with asyncio.timeout(30):
            talking = asyncio.ensure_future(asyncio.to_thread(client))
            await receiver.serve(link.plain, link.codec)
            with pytest.raises(InvalidRequest, match=f"larger than {limit} bytes"):
                await receiver.finished
            link.plain.close()
            await talking
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= limit

    asyncio.run(work())


PEER = Remote("10.0.0.1:9", "engine-a", "sha256:a")


def offer(link: Link, target: Path, make: Callable[[bytes], bytes], peer: Remote = PEER) -> bytes:
    """Let a client send its first bytes, made from the right token; return what it is answered."""
    answers: list[bytes] = []

    async def work() -> None:
        nothing: Any = None
        service = Migration(nothing, nothing, nothing, nothing)
        receiver = FileReceiver(target, PEER.fingerprint, LIMIT)
        for key, files in (("other", None), ("this", receiver)):
            incoming = Incoming.__new__(Incoming)
            incoming.files = files
            service._incoming[key] = incoming, nothing

        def client() -> None:
            link.client.sendall(make(receiver.token))
            answers.append(link.client.recv(9))
            link.client.sendall(frame(DataKind.FINISHED))

        link.plain.setblocking(False)
        talking = asyncio.ensure_future(asyncio.to_thread(client))
        async with asyncio.timeout(20):
            await service.accept_data(link.plain, link.codec, peer)
            link.plain.close()
            await asyncio.gather(talking, return_exceptions=True)

    asyncio.run(work())
    return b"".join(answers)


def test_the_token_of_a_migration_opens_its_connection(link: Link, tmp_path: Path) -> None:
    assert offer(link, tmp_path, lambda token: token) == DATA_ACCEPTED


@pytest.mark.parametrize(
    "make",
    [
        lambda token: bytes(32),
        lambda token: token[:31] + bytes((token[31] ^ 1,)),
        lambda token: token + b"x",
        lambda token: token.hex().encode(),
        lambda token: b"GET / HTTP/1.1\r\nHost: jaula.example\r\n\r\n",
        lambda token: bytes(1 << 20),
    ],
)
def test_other_tokens_are_dropped(
    link: Link, tmp_path: Path, make: Callable[[bytes], bytes]
) -> None:
    assert offer(link, tmp_path, make) == b""


def test_the_token_of_another_certificate_is_dropped(link: Link, tmp_path: Path) -> None:
    stranger = Remote(PEER.address, PEER.name, "sha256:b")
    assert offer(link, tmp_path, lambda token: token, stranger) == b""


def test_a_client_that_sends_no_token_is_dropped(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_TOKEN_TIMEOUT", 0.1)
    assert offer(link, tmp_path, lambda token: token[:5]) == b""


def test_the_files_of_a_migration_have_one_connection(
    link: Link, contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    async def work() -> None:
        receiver = FileReceiver(tmp_path, "", LIMIT)
        serving = asyncio.ensure_future(receiver.serve(link.plain, link.codec))
        await asyncio.sleep(0)
        second = await asyncio.to_thread(Link, contexts)
        with contextlib.closing(second), pytest.raises(InvalidRequest):
            await receiver.serve(second.plain, second.codec)
        await receiver.close()
        await serving

    asyncio.run(work())


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack("!BI", kind, len(payload)) + payload


FILE = frame(DataKind.NAME, NAME)


@pytest.mark.parametrize(
    "data",
    [
        frame(0),
        frame(6),
        frame(255, b"x"),
        struct.pack("!BI", DataKind.NAME, 129),
        struct.pack("!BI", DataKind.NAME, 0xFFFFFFFF),
        FILE + struct.pack("!BI", DataKind.DATA, MAX_DATA + 1),
        FILE + struct.pack("!BI", DataKind.ZEROS, MAX_DATA + 1),
        FILE + struct.pack("!BI", DataKind.ZEROS, 0xFFFFFFFF),
        FILE + struct.pack("!BI", DataKind.END, 1),
        struct.pack("!BI", DataKind.FINISHED, 1),
        frame(DataKind.DATA, b"x"),
        frame(DataKind.END),
        head(DataKind.ZEROS, 4),
        FILE + FILE,
        FILE + frame(DataKind.FINISHED),
        frame(DataKind.NAME, b"p\xc3\xa4ges-1.img"),
    ],
)
def test_a_frame_that_is_not_of_the_protocol_is_refused(
    link: Link, tmp_path: Path, data: bytes
) -> None:
    with pytest.raises(ProtocolError):
        receive(link, tmp_path, lambda: link.client.sendall(data))


@pytest.mark.parametrize(
    "name",
    [b"", b"../x.img", b"a/b.img", b".img", b".x.img", b"x.so", b"x.img\n", b"x" * 122 + b".img",
     b"x\0.img", b"/x.img", b"..", b"manifest.mac"],
)  # fmt: skip
def test_a_name_that_no_image_has_is_refused(link: Link, tmp_path: Path, name: bytes) -> None:
    with pytest.raises(InvalidRequest):
        receive(link, tmp_path, lambda: link.client.sendall(frame(DataKind.NAME, name)))
    assert list(tmp_path.iterdir()) == []


def test_a_file_arrives_once(link: Link, tmp_path: Path) -> None:
    once = FILE + frame(DataKind.DATA, b"first") + frame(DataKind.END)
    with pytest.raises(InvalidRequest):
        receive(link, tmp_path, lambda: link.client.sendall(once + once))
    assert (tmp_path / NAME.decode()).read_bytes() == b"first"


def test_a_link_in_the_place_of_a_file_is_not_followed(link: Link, tmp_path: Path) -> None:
    images = directory(tmp_path, "images")
    (tmp_path / "other").write_bytes(b"kept")
    (images / NAME.decode()).symlink_to(tmp_path / "other")
    with pytest.raises(RuntimeFailure):
        receive(link, images, lambda: link.client.sendall(FILE + frame(DataKind.DATA, b"x")))
    assert (tmp_path / "other").read_bytes() == b"kept"


def test_too_many_files_are_refused(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_transfer, "MAX_FILES", 3)
    data = b"".join(
        frame(DataKind.NAME, b"core-%d.img" % number) + frame(DataKind.END) for number in range(4)
    )
    with pytest.raises(InvalidRequest, match="at most 3 files"):
        receive(link, tmp_path, lambda: link.client.sendall(data))


@pytest.mark.parametrize("data", [b"", FILE, FILE + head(DataKind.DATA, 9) + b"x", FILE[:3]])
def test_a_connection_that_ends_early_is_a_failure(link: Link, tmp_path: Path, data: bytes) -> None:
    def sends() -> None:
        link.client.sendall(data)
        link.client.unwrap()

    with pytest.raises(LinkLost):
        receive(link, tmp_path, sends)


def test_bytes_that_are_not_tls_are_a_failure(link: Link, tmp_path: Path) -> None:
    def sends() -> None:
        socket.socket.sendall(link.client, b"\x17\x03\x03\x00\x20" + bytes(32))

    with pytest.raises(LinkLost):
        receive(link, tmp_path, sends)


def test_damaged_streams_are_refused_or_received(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    random.seed(11)
    whole = FILE + frame(DataKind.DATA, b"content") + head(DataKind.ZEROS, 70) + frame(DataKind.END)
    whole += frame(DataKind.NAME, b"core-1.img") + frame(DataKind.END) + frame(DataKind.FINISHED)
    for number in range(60):
        data = bytearray(whole)
        for _ in range(random.randint(1, 3)):
            data[random.randrange(len(data))] = random.randrange(256)
        made = Link(contexts)
        target = directory(tmp_path, str(number))
        with contextlib.closing(made), contextlib.suppress(JaulaError):
            receive(made, target, functools.partial(send_all, made, bytes(data)))


def send_all(link: Link, data: bytes) -> None:
    link.client.sendall(data)
    with contextlib.suppress(OSError):
        link.client.unwrap()


@pytest.mark.parametrize("seed", range(5))
def test_runs_cover_a_chunk_in_order(seed: int) -> None:
    random.seed(seed)
    block = 1 << 16
    chunk = bytearray()
    while len(chunk) < CHUNK:
        size = random.choice((block, block, 2 * block))
        chunk += random.choice((bytes(size), random.randbytes(size), bytes(size - 1) + b"x"))
    size = random.randint(CHUNK - block, CHUNK)
    end = 0
    for start, stop, is_zero in split_zeros(chunk, size):
        assert start == end
        assert stop > start
        assert is_zero == (not any(chunk[start:stop])) or not is_zero
        end = stop
    assert end == size
    assert list(split_zeros(bytearray(CHUNK), CHUNK)) == [(0, CHUNK, True)]
    assert list(split_zeros(bytearray(CHUNK), 0)) == []
