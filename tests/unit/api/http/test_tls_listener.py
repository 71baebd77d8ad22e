"""TCP with mutual TLS: accepted and rejected clients, and slow ones."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.certificates import Authority, fingerprint
from jaula import tls
from jaula.api.http import http_protocol, tls_listener
from jaula.api.http.api_server import Server
from jaula.spec.api_params import AttachOptions, Origin, Remote
from unit.api.client import Client, eventually
from unit.api.memory_engine import MemoryEngine
from unit.event_loop import idle


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def places(authority: Authority) -> SimpleNamespace:
    """Directories of certificates."""
    return SimpleNamespace(
        server=authority.server(),
        alice=authority.sign("alice"),
        nameless=authority.sign(""),
        old=authority.sign("alice", expired=True),
        wrong_use=authority.sign("mallory", usage="serverAuth"),
        stranger=Authority(authority.directory / "other").sign("alice"),
    )


STREAM = "other-protocol"


class Secured:
    """A server behind an entrance; ``seen`` is who came."""

    def __init__(self, places: SimpleNamespace) -> None:
        self.places = places
        self.engine: Any = MemoryEngine()
        self.seen: list[Origin | None] = []

    async def __aenter__(self) -> Secured:
        sock = socket.create_server(("127.0.0.1", 0), backlog=512)
        sock.setblocking(False)
        self.port = sock.getsockname()[1]

        def enter(origin: Origin | None) -> Any:
            self.seen.append(origin)
            return self.engine

        self.server = Server(enter)
        self.entrance = await self.server.listen_tls(
            sock, self.context(self.places.server), {STREAM: self.serve_stream}
        )
        return self

    def context(self, place: Path) -> ssl.SSLContext:
        authority = place.parent / "ca.pem"
        files = (str(path) for path in (authority, place / "cert.pem", place / "key.pem"))
        return tls.server_context(tls.TlsFiles(*files), protocols=(STREAM,))

    async def serve_stream(self, client: socket.socket, codec: tls.TlsCodec, peer: Remote) -> None:
        self.seen.append(peer)
        codec.write(b"stream")
        await asyncio.get_running_loop().sock_sendall(client, codec.outgoing())

    async def __aexit__(self, *exc: object) -> None:
        await self.server.close()

    async def client(self, place: Path | None, protocols: tuple[str, ...] = ()) -> Client:
        context = ssl.create_default_context(cafile=str(self.places.server / "ca.pem"))
        if protocols:
            context.set_alpn_protocols(protocols)
        if place is not None:
            context.load_cert_chain(place / "cert.pem", place / "key.pem")
        return Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=context))


def secured(places: SimpleNamespace, test: Callable[[Secured], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), Secured(places) as server:
            await test(server)

    asyncio.run(run())


def test_a_client_is_identified_by_its_certificate(places: SimpleNamespace) -> None:
    async def test(server: Secured) -> None:
        for place in (places.alice, places.nameless):
            client = await server.client(place)
            assert (await client.ask("GET", "/_ping")).body == b"OK"
            assert (await client.ask("GET", "/version")).status == 200
            client.close()
        alice, nameless = server.seen
        assert isinstance(alice, Remote)
        assert isinstance(nameless, Remote)
        assert (alice.name, alice.fingerprint) == ("alice", fingerprint(places.alice))
        assert (nameless.name, nameless.fingerprint) == ("", fingerprint(places.nameless))
        assert alice.address.startswith("127.0.0.1:")

    secured(places, test)


def test_a_client_of_another_protocol_is_served_by_it(places: SimpleNamespace) -> None:
    async def test(server: Secured) -> None:
        reader, writer = await connect(server, (STREAM, "http/1.1"))
        assert await reader.read() == b"stream"
        writer.close()
        (alice,) = server.seen
        assert isinstance(alice, Remote)
        assert alice.fingerprint == fingerprint(places.alice)

    async def connect(
        server: Secured, protocols: tuple[str, ...]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        client = await server.client(places.alice, protocols)
        return client.reader, client.writer

    secured(places, test)


@pytest.mark.parametrize("protocols", [("h2", "http/1.1"), ("http/1.1",), ("unknown",)])
def test_clients_that_offer_other_protocols_speak_http(
    places: SimpleNamespace, protocols: tuple[str, ...]
) -> None:
    async def test(server: Secured) -> None:
        client = await server.client(places.alice, protocols)
        assert (await client.ask("GET", "/_ping")).body == b"OK"
        client.close()

    secured(places, test)


@pytest.mark.parametrize("kind", ["", "old", "wrong_use", "stranger"])
def test_clients_without_a_valid_certificate_are_rejected(
    places: SimpleNamespace, kind: str
) -> None:
    async def test(server: Secured) -> None:
        async def ping() -> None:
            client = await server.client(getattr(places, kind) if kind else None)
            await client.ask("GET", "/_ping")  # TLS 1.3 learns of a refusal with the answer

        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ping()
        assert server.seen == []

    secured(places, test)


def test_plain_http_gets_an_explaining_answer(places: SimpleNamespace) -> None:
    async def test(server: Secured) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert b"HTTP request to an HTTPS server" in answer
        writer.close()
        assert server.seen == []

    secured(places, test)


def test_silent_and_slow_clients_do_not_block_others(
    places: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_listener, "MAX_HANDSHAKES_PER_ADDRESS", 8)

    async def test(server: Secured) -> None:
        silent = []
        for number in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            if number % 2:
                writer.write(b"\x16\x03\x01\x02")  # a handshake that never goes on
            silent.append((reader, writer))
        client = await server.client(places.alice)
        assert (await client.ask("GET", "/_ping")).body == b"OK"
        first, _ = silent[0]
        assert await first.read() == b""  # dropped to make room
        await eventually(lambda: len(server.entrance._handshakes) <= 8)
        for _, writer in silent:
            writer.close()
        client.close()

    secured(places, test)


def test_a_handshake_times_out(places: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_listener, "HANDSHAKE_SECONDS", 0.02)

    async def test(server: Secured) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        writer.close()
        assert not server.entrance._handshakes

    secured(places, test)


def test_garbage_in_a_tls_stream_ends_only_this_connection(places: SimpleNamespace) -> None:
    async def test(server: Secured) -> None:
        good = await server.client(places.alice)
        bad = await server.client(places.alice)
        raw: socket.socket = bad.writer.get_extra_info("socket")
        os.write(raw.fileno(), b"\x17\x03\x03\x00\x10" + b"x" * 16)
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            await bad.until_closed()
        assert (await good.ask("GET", "/_ping")).body == b"OK"
        good.close()

    secured(places, test)


def test_a_hijacked_stream_is_forwarded_with_half_closed_ends(places: SimpleNamespace) -> None:
    """The way of Go's clients: input ends by close_notify, the output is still read."""

    async def echo(ref: str, descriptor: int, options: AttachOptions) -> None:
        def work() -> None:
            with socket.socket(fileno=descriptor) as sock:
                sock.setblocking(True)
                said = options.early
                while data := sock.recv(65536):
                    said += data
                sock.sendall(said + b" and that is all")

        await asyncio.to_thread(work)

    async def test(server: Secured) -> None:
        server.engine.containers.attach = echo
        server.engine.containers.tty = lambda ref, control=False: True
        place = places.alice
        context = tls.client_context(
            str(place / "ca.pem"), str(place / "cert.pem"), str(place / "key.pem")
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        codec = tls.TlsCodec(context, server=False, name="127.0.0.1")
        while not codec.do_handshake():
            writer.write(codec.outgoing())
            codec.feed(await reader.read(65536))
        head = b"POST /containers/x/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n"
        codec.write(head + b"Upgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n")
        codec.write(b"what is said")
        codec.end()
        writer.write(codec.outgoing())
        got = b""
        while not codec.ended:
            while piece := codec.read():
                got += piece
            if not codec.ended:
                codec.feed(await reader.read(65536))
        writer.close()
        assert got.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert got.endswith(b"\r\n\r\nwhat is said and that is all")

    secured(places, test)


def test_a_client_that_does_not_read_needs_no_memory(places: SimpleNamespace) -> None:
    sent = 0
    kernel = 32 << 20  # bytes, more than what the kernel's buffers hold

    async def flood(ref: str, descriptor: int, options: AttachOptions) -> None:
        nonlocal sent
        with socket.socket(fileno=descriptor) as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            while sent < kernel:
                await loop.sock_sendall(sock, bytes(65536))
                sent += 65536

    async def test(server: Secured) -> None:
        server.engine.containers.attach = flood
        server.engine.containers.tty = lambda ref, control=False: True
        client = await server.client(places.alice)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send("POST", "/containers/x/attach?stream=1&stdout=1", b"")
        await eventually(lambda: sent)
        await idle()
        assert sent < kernel
        other = await server.client(places.alice)
        assert (await other.ask("GET", "/_ping")).body == b"OK"
        assert sent < kernel
        client.writer.transport.abort()
        other.close()

    secured(places, test)


def test_new_certificates_apply_to_new_clients(places: SimpleNamespace, tmp_path: Path) -> None:
    async def test(server: Secured) -> None:
        old = await server.client(places.alice)
        other = Authority(tmp_path / "new", "another authority")
        server.entrance.context = server.context(other.server())
        with pytest.raises(ssl.SSLCertVerificationError):
            await server.client(places.alice)
        assert (await old.ask("GET", "/_ping")).body == b"OK"
        old.close()

    secured(places, test)


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ([[("commonName", "bob")]], "bob"),
        ([[("commonName", "bob")], [("commonName", "root")]], ""),
        ([[("commonName", "sha256:" + "0" * 64)]], ""),
        ([[("commonName", "a\nb")]], ""),
        ([[("commonName", "x" * 65)]], ""),
        ([[("organizationName", "bob")]], ""),
    ],
)
def test_an_ambiguous_common_name_is_dropped(
    subject: list[list[tuple[str, str]]], name: str
) -> None:
    found = http_protocol.certified_peer("1.2.3.4:5", subject, b"der")
    assert found.name == name
    assert found.fingerprint.startswith("sha256:")
    assert json.dumps(found.address) == '"1.2.3.4:5"'


def test_a_malformed_handshake_ends_only_its_connection(places: SimpleNamespace) -> None:
    chance = random.Random(7)

    async def test(server: Secured) -> None:
        for number in range(150):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            start = (b"", b"\x16\x03\x01", b"\x16\x03\x03\x00\x40\x01", b"\x15\x03\x03\x00\x02")
            writer.write(start[number % 4] + chance.randbytes(chance.randrange(400)))
            if number % 3:
                writer.write_eof()
                await reader.read()
            writer.close()
        client = await server.client(places.alice)
        assert (await client.ask("GET", "/_ping")).body == b"OK"
        client.close()
        await eventually(lambda: not server.entrance._handshakes)
        assert len(server.seen) == 1

    secured(places, test)
