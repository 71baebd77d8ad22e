"""Attaching over a WebSocket, with a client of bare sockets."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness import containers
from harness.engine import PrivateEngine


class Client:
    """The client's side of RFC 6455, as little as is needed."""

    def __init__(self, engine: PrivateEngine, path: str, **headers: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(engine.socket))
        sent = {
            "Host": "jaula",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"GET {path} HTTP/1.1", *(f"{n}: {v}" for n, v in sent.items())]
        self.socket.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass

    def send(self, data: bytes, opcode: int = 2) -> None:
        mask = os.urandom(4)
        body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.socket.sendall(bytes((0x80 | opcode, 0x80 | len(data))) + mask + body)

    def receive(self) -> tuple[int, bytes]:
        first, length = self.file.read(2)
        if length == 126:
            length = int.from_bytes(self.file.read(2), "big")
        elif length == 127:
            length = int.from_bytes(self.file.read(8), "big")
        return first & 0x0F, self.file.read(length)

    def until_closed(self) -> tuple[bytes, bytes]:
        found = b""
        while True:
            opcode, data = self.receive()
            if opcode == 8:
                return found, data
            found += data


@contextmanager
def attached(engine: PrivateEngine, name: str, query: str, **headers: str) -> Iterator[Client]:
    client = Client(engine, f"/v1.45/containers/{name}/attach/ws?{query}", **headers)
    try:
        yield client
    finally:
        client.file.close()
        client.socket.close()


def test_input_and_output_are_messages_without_docker_headers(
    engine: PrivateEngine, busybox: str
) -> None:
    with (
        containers.running(engine, busybox, "cat", flags=("-i",)) as name,
        attached(engine, name, "stream=1&stdin=1&stdout=1&stderr=1") as client,
    ):
        assert client.status == 101
        client.send(b"hello\n")
        assert client.receive() == (2, b"hello\n")
        client.send(b"there", opcode=9)
        assert client.receive() == (10, b"there")
        client.send(b"\x03\xe8", opcode=8)
        assert client.receive()[0] == 8
        containers.eventually(lambda: not client.socket.recv(1), "the engine hangs up")
        assert containers.inspect(engine, name)["State"]["Running"]


def test_the_end_of_the_container_closes_with_a_normal_code(
    engine: PrivateEngine, busybox: str
) -> None:
    script = "read x; head -c 300000 /dev/zero; echo err >&2"
    with (
        containers.running(engine, busybox, "sh", "-c", script, flags=("-i",)) as name,
        attached(engine, name, "stream=1&stdin=1&stdout=1&stderr=1") as client,
    ):
        client.send(b"go\n")
        found, code = client.until_closed()
        assert len(found) == 300_004
        assert code == b"\x03\xe8"


def test_what_was_written_before_comes_with_logs(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, "sh", "-c", "echo before; sleep 600") as name:
        containers.eventually(
            lambda: b"before" in engine.request("GET", f"/containers/{name}/logs?stdout=1").body,
            "the log",
        )
        with attached(engine, name, "logs=1&stream=1&stdout=1") as client:
            assert client.receive() == (2, b"before\n")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upgrade": "tcp"}, 400),
        ({"Sec_WebSocket_Version": "8"}, 400),
        ({"Sec_WebSocket_Key": "short"}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "http://jaula"}, 101),
    ],
)
def test_an_invalid_handshake_is_rejected(
    engine: PrivateEngine, plain_cat: str, headers: dict[str, str], status: int
) -> None:
    with attached(engine, plain_cat, "stream=1&stdout=1", **headers) as client:
        assert client.status == status


def test_a_frame_without_a_mask_closes_with_a_protocol_error(
    engine: PrivateEngine, plain_cat: str
) -> None:
    with attached(engine, plain_cat, "stream=1&stdin=1") as client:
        client.socket.sendall(b"\x82\x01x")
        assert client.until_closed()[1][:2] == b"\x03\xea"


def test_an_unknown_container_is_404_before_the_upgrade(engine: PrivateEngine) -> None:
    with attached(engine, "nobody", "stream=1") as client:
        assert client.status == 404


@pytest.fixture
def plain_cat(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    with containers.running(engine, busybox, "cat", flags=("-i",)) as name:
        yield name
