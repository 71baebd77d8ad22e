"""The log driver gelf, against a server of GELF over UDP and TCP."""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from collections.abc import Iterator

import pytest

from jaula.errors import InvalidRequest
from jaula.logs.drivers import gelf

IDENTITY = {"container-id": "a" * 64, "container-name": "web", "tag": "app"}


@pytest.fixture
def datagrams() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


def address(sock: socket.socket, scheme: str = "udp") -> dict[str, str]:
    return {"gelf-address": f"{scheme}://127.0.0.1:{sock.getsockname()[1]}"}


def assembled(parts: list[bytes]) -> bytes:
    """Return the message of its chunks, as a server joins them."""
    assert all(part.startswith(b"\x1e\x0f") and part[11] == len(parts) for part in parts)
    assert len({part[2:10] for part in parts}) == 1
    return b"".join(part[12:] for part in sorted(parts, key=lambda part: part[10]))


@pytest.mark.parametrize(("kind", "bits"), [("gzip", 31), ("zlib", 15), ("none", 0)])
def test_a_line_is_a_message_with_the_containers_fields(
    datagrams: socket.socket, kind: str, bits: int
) -> None:
    more = {"gelf-compression-type": kind, "attributes": '{"image_name":"busybox"}'}
    writer = gelf.open_writer(address(datagrams) | more | IDENTITY)
    writer.write("stderr", b"hello\n")
    data = datagrams.recv(65536)
    writer.close()
    message = json.loads(zlib.decompress(data, bits) if bits else data)
    assert abs(message.pop("timestamp") - time.time()) < 60
    assert message == {
        "version": "1.1",
        "host": os.uname().nodename,
        "short_message": "hello",
        "level": 3,
        "_container_id": "a" * 64,
        "_container_name": "web",
        "_tag": "app",
        "_image_name": "busybox",
    }


def test_a_large_message_is_sent_in_chunks(datagrams: socket.socket) -> None:
    writer = gelf.open_writer(address(datagrams) | {"gelf-compression-type": "none"} | IDENTITY)
    text = os.urandom(6000).hex()
    writer.write("stdout", text.encode() + b"\n")
    first = datagrams.recv(65536)
    parts = [first, *(datagrams.recv(65536) for _ in range(first[11] - 1))]
    writer.close()
    assert all(len(part) <= 1420 for part in parts)
    assert json.loads(assembled(parts))["short_message"] == text


def test_a_message_beyond_the_protocol_is_not_sent() -> None:
    assert len(gelf.chunks(b"x" * 128 * 1408)) == 128
    assert gelf.chunks(b"x" * (128 * 1408 + 1)) == ()


def test_over_tcp_a_zero_byte_ends_a_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        writer = gelf.open_writer(address(server, "tcp") | IDENTITY)
        writer.write("stdout", b"one\nzero \0 byte\n")
        connection, _ = server.accept()
        writer.close()
        with connection:
            connection.settimeout(5)
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
    messages = [json.loads(part)["short_message"] for part in data.removesuffix(b"\0").split(b"\0")]
    assert messages == ["one", "zero \0 byte"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gelf-address": "host:12201"},
        {"gelf-address": "udp://host"},
        {"gelf-address": "unix:///x"},
        {"gelf-address": "udp://h:1", "gelf-compression-type": "zstd"},
        {"gelf-address": "udp://h:1", "gelf-compression-level": "10"},
        {"gelf-address": "udp://h:1", "gelf-tcp-max-reconnect": "1"},
        {"gelf-address": "tcp://h:1", "gelf-compression-type": "gzip"},
        {"gelf-address": "tcp://h:1", "gelf-tcp-reconnect-delay": "x"},
        {"gelf-address": "udp://h:1", "mode": "blocking"},
        {"gelf-address": "udp://h:1", "nosuch": "1"},
    ],
)
def test_invalid_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        gelf.check(options)
