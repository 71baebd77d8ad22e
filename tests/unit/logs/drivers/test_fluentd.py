"""The log driver fluentd, against a server of the forward protocol."""

from __future__ import annotations

import socket
import time
from typing import Any

import msgspec
import pytest

from jaula.errors import InvalidRequest
from jaula.logs.drivers import address as of_options
from jaula.logs.drivers import fluentd
from jaula.logs.drivers.fluentd import parse_address

IDENTITY = {"container-id": "a" * 64, "container-name": "web", "tag": "app.web"}


def received(server: socket.socket, options: dict[str, str], *lines: bytes) -> list[Any]:
    """Return the events that a server gets of a writer."""
    port = server.getsockname()[1]
    writer = fluentd.open_writer({"fluentd-address": f"127.0.0.1:{port}"} | IDENTITY | options)
    for line in lines:
        writer.write("stderr", line)
    connection, _ = server.accept()
    writer.close()
    with connection:
        connection.settimeout(5)
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    events = []
    while data:
        # An event is an array of three: the decoder reads one value at a time.
        for end in range(1, len(data) + 1):
            try:
                events.append(msgspec.msgpack.decode(data[:end]))
            except msgspec.DecodeError:
                continue
            data = data[end:]
            break
    return events


@pytest.fixture
def server() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        yield listener


def test_an_event_has_the_tag_the_time_and_the_containers_fields(server: socket.socket) -> None:
    attributes = {"attributes": '{"com.example.team":"ops"}'}
    one, two = received(server, attributes, b"hello\n\xff", b"\n")
    assert one[0] == "app.web"
    assert abs(one[1] - time.time()) < 60
    assert one[2] == {
        "container_id": "a" * 64,
        "container_name": "/web",
        "com.example.team": "ops",
        "source": "stderr",
        "log": "hello",
    }
    assert two[2]["log"] == "\N{REPLACEMENT CHARACTER}"


def test_a_part_of_a_long_line_is_marked(server: socket.socket) -> None:
    parts = received(server, {}, b"x" * 20_000 + b"\n")
    assert [part[2].get("partial_message") for part in parts] == ["true", None]
    assert sum(len(part[2]["log"]) for part in parts) == 20_000


def test_times_may_have_nanoseconds(server: socket.socket) -> None:
    ((_, moment, _),) = received(server, {"fluentd-sub-second-precision": "true"}, b"x\n")
    assert (moment.code, len(moment.data)) == (0, 8)
    assert abs(int.from_bytes(moment.data[:4], "big") - time.time()) < 60


def test_a_server_that_is_absent_costs_a_bounded_buffer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = {"fluentd-address": f"127.0.0.1:{port}", "fluentd-buffer-limit": "10k"}
    writer = fluentd.open_writer(options | IDENTITY)
    began = time.monotonic()
    for _ in range(1000):
        writer.write("stdout", b"x" * 100 + b"\n")
    assert time.monotonic() - began < 3
    assert writer.dropped > 50_000
    writer.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", "tcp://127.0.0.1:24224"),
        ("host", "tcp://host:24224"),
        ("host:1", "tcp://host:1"),
        ("tcp://host", "tcp://host:24224"),
        ("tls://host:1", "tcp+tls://host:1"),
        ("[::1]", "tcp://::1:24224"),
        ("unix:///run/f.sock", "unix:///run/f.sock"),
    ],
)
def test_addresses_have_dockers_defaults(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


def test_the_default_address_is_the_hosts_own() -> None:
    """So a request for the driver needs the grant for that address."""
    address = of_options("fluentd", {})
    assert address is not None
    assert address.of_host
    assert of_options("syslog", {}) is None
    assert of_options("json-file", {"fluentd-address": "127.0.0.1"}) is None
    assert of_options("", {"gelf-address": "udp://127.0.0.1:1"}) is not None


@pytest.mark.parametrize(
    "options",
    [
        {"fluentd-address": "http://x"},
        {"fluentd-address": "unix://relative"},
        {"fluentd-address": "host:99999"},
        {"fluentd-request-ack": "true"},
        {"fluentd-async": "perhaps"},
        {"fluentd-retry-wait": "soon"},
        {"fluentd-max-retries": "-1"},
        {"fluentd-buffer-limit": "lots"},
        {"mode": "blocking"},
        {"nosuch": "1"},
    ],
)
def test_invalid_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        fluentd.check(options)


def test_options_of_dockers_client_are_accepted() -> None:
    fluentd.check(
        {
            "fluentd-async": "true",
            "fluentd-retry-wait": "1s",
            "fluentd-max-retries": "3",
            "fluentd-write-timeout": "500ms",
            "fluentd-request-ack": "false",
            "labels": "a,b",
        }
    )
