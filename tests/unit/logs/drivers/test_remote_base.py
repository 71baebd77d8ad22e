"""Log drivers that send, and the local driver: the contract of writers, and the messages sent."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.engine.containers.log_config import expand
from jaula.errors import InvalidRequest
from jaula.logs import NAMES, open_writer, readable, validate
from jaula.logs.drivers import POD, SENDING, journald, syslog
from jaula.logs.log_driver import LogWriter
from jaula.logs.reader.read import read

IDENTITY = {"container-id": "a" * 64, "container-name": "web", "tag": "web/1"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    path = f"/tmp/jlt-log-{os.getpid()}.sock"
    yield path
    Path(path).unlink(missing_ok=True)


@pytest.fixture
def datagrams(place: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(place)
        sock.settimeout(5)
        yield sock


Make = Callable[[str], LogWriter]


@pytest.fixture
def make(tmp_path: Path, place: str, datagrams: socket.socket) -> Make:
    def one(driver: str) -> LogWriter:
        if driver == "journald":
            return journald.open_writer(IDENTITY, place)
        addresses = {
            "syslog": {"syslog-address": f"unixgram://{place}"},
            "fluentd": {"fluentd-address": "tcp://127.0.0.1:1"},
            "gelf": {"gelf-address": "udp://127.0.0.1:9"},
        }
        if driver == POD:
            return open_writer(POD, {"directory": str(tmp_path), "path": "web/0.log"}, "")
        options = addresses[driver] | IDENTITY if driver in addresses else {}
        return open_writer(driver, options, str(tmp_path / "log"))

    return one


@pytest.mark.parametrize("driver", [*NAMES, POD])
def test_a_writer_accepts_any_bytes_and_closes_twice(make: Make, driver: str) -> None:
    writer = make(driver)
    for data in (b"", b"\n", b"a\nb", b"\xff\0\n", b"x" * 40_000, b"\n"):
        writer.write("stdout", data)
        writer.write("stderr", data)
        writer.reopen()
    writer.flush()
    writer.close()
    writer.close()
    writer.reopen()
    writer.write("stdout", b"late\n")
    assert writer.dropped >= 0


@pytest.mark.parametrize("driver", NAMES)
def test_an_unknown_option_is_refused(driver: str) -> None:
    with pytest.raises(InvalidRequest, match="unknown log opt"):
        validate(driver, {"no-such": "x"})


@pytest.mark.parametrize("driver", ["awslogs", "gcplogs", "splunk", "nosuch"])
def test_a_driver_that_is_absent_is_refused_with_what_replaces_it(driver: str) -> None:
    with pytest.raises(InvalidRequest, match=f"no log driver named '{driver}'") as refused:
        validate(driver, {})
    assert refused.value.hint
    assert ("Fluent Bit" in refused.value.hint) == (driver != "nosuch")


@pytest.mark.parametrize("driver", [name for name in SENDING if name != "journald"])
def test_lines_that_are_sent_are_kept_for_readers(make: Make, tmp_path: Path, driver: str) -> None:
    writer = make(driver)
    writer.write("stdout", b"one\ntwo\n")
    writer.close()
    assert [record.data for record in read(str(tmp_path / "log"))] == [b"one\n", b"two\n"]


def test_the_cache_can_be_limited_and_disabled(tmp_path: Path, place: str) -> None:
    address = {"syslog-address": "udp://127.0.0.1:9"}
    limited = address | {"cache-max-size": "1k", "cache-max-file": "2", "cache-compress": "false"}
    writer = open_writer("syslog", limited | IDENTITY, str(tmp_path / "log"))
    for number in range(100):
        writer.write("stdout", b"line %d\n" % number)
    writer.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    disabled = address | {"cache-disabled": "true"}
    assert readable("syslog", limited)
    assert not readable("syslog", disabled)
    open_writer("syslog", disabled | IDENTITY, str(tmp_path / "other")).close()
    assert not (tmp_path / "other").exists()
    with pytest.raises(InvalidRequest, match="cache-disabled"):
        validate("syslog", {"cache-disabled": "perhaps"})


def test_local_is_read_like_json_file(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    writer = open_writer("local", {"max-size": "1k", "max-file": "2", "compress": "false"}, path)
    for number in range(100):
        writer.write("stdout", b"line %d\n" % number)
    writer.close()
    lines = [record.data for record in read(path)]
    assert lines[-1] == b"line 99\n"
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]


def test_the_journal_gets_a_line_with_the_containers_fields(
    make: Make, datagrams: socket.socket
) -> None:
    writer = make("journald")
    writer.write("stderr", b"one\ntw")
    writer.write("stderr", b"o\nrest")
    first, second = (datagrams.recv(65536).decode() for _ in range(2))
    assert first.splitlines() == [
        "MESSAGE=one",
        "PRIORITY=3",
        "CONTAINER_ID=" + "a" * 12,
        "CONTAINER_ID_FULL=" + "a" * 64,
        "CONTAINER_NAME=web",
        "CONTAINER_TAG=web/1",
        "SYSLOG_IDENTIFIER=web/1",
    ]
    assert second.startswith("MESSAGE=two\n")
    writer.close()
    assert datagrams.recv(65536).decode().endswith("CONTAINER_PARTIAL_MESSAGE=true\n")


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d web/1\[\d+\]: hello"),
        ("rfc3164", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ web/1\[\d+\]: hello"),
        ("rfc5424", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \S+ web/1 \d+ - - hello"),
        (
            "rfc5424micro",
            rb"<30>1 \d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z \S+ web/1 \d+ - - hello",
        ),
    ],
)
def test_syslog_has_the_requested_format(
    datagrams: socket.socket, place: str, form: str, pattern: bytes
) -> None:
    options = {"syslog-address": f"unixgram://{place}", "syslog-format": form} | IDENTITY
    writer = syslog.open_writer(options)
    writer.write("stdout", b"hello\n")
    writer.close()
    assert re.fullmatch(pattern, datagrams.recv(4096))


def test_syslog_over_tcp_ends_each_message_and_connects_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jaula.logs.buffered_sender._RECONNECT_INTERVAL", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        options = {"syslog-address": f"tcp://127.0.0.1:{port}", "syslog-facility": "local1"}
        writer = syslog.open_writer(options | IDENTITY)
        writer.write("stderr", b"a\nb\n")
        first, _ = server.accept()
        first.settimeout(5)
        deadline = time.monotonic() + 5
        got = b""
        while got.count(b"\n") < 2 and time.monotonic() < deadline:
            writer.flush()
            got += first.recv(4096)
        assert [line[-1:] for line in got.splitlines()] == [b"a", b"b"]
        assert got.startswith(b"<139>")
        first.close()
        end = time.monotonic() + 8
        server.settimeout(0.05)
        second = None
        while second is None and time.monotonic() < end:
            writer.write("stdout", b"again\n")
            try:
                second, _ = server.accept()
            except TimeoutError:
                continue
        assert second is not None
        assert b"again" in second.recv(4096)
        second.close()
        writer.close()


def test_a_reader_that_does_not_read_costs_a_bounded_buffer(
    datagrams: socket.socket, place: str
) -> None:
    options = {"syslog-address": f"unixgram://{place}", "max-buffer-size": "10k"} | IDENTITY
    writer = syslog.open_writer(options)
    began = time.monotonic()
    for _ in range(3000):
        writer.write("stdout", b"x" * 100 + b"\n")
    assert time.monotonic() - began < 3
    assert writer.dropped > 200_000
    closing = threading.Thread(target=writer.close)
    closing.start()
    datagrams.settimeout(0.01)
    received = 0
    while closing.is_alive():
        try:
            datagrams.recv(4096)
            received += 1
        except TimeoutError:
            continue
    closing.join()
    assert received > 20


@pytest.mark.parametrize(
    "options",
    [
        {"syslog-address": "nonsense"},
        {"syslog-address": "tcp://h:99999"},
        {"syslog-address": "unix://relative"},
        {"syslog-facility": "nobody"},
        {"syslog-format": "xml"},
        {"mode": "blocking"},
        {"max-buffer-size": "lots"},
    ],
)
def test_invalid_syslog_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        validate("syslog", options)


def test_a_tag_is_expanded_from_known_fields_only() -> None:
    assert expand("{{.Name}}/{{ .ID }}", {".Name": "n", ".ID": "i"}) == "n/i"
    with pytest.raises(InvalidRequest, match="not known"):
        expand("{{.Env}}", {})


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "[::1]", "127.0.0.1"])
def test_a_server_outside_the_host_is_required_after_resolution(host: str) -> None:
    """``127.1`` is no IP address to a parser, but the loopback address to getaddrinfo(3)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        options = {"syslog-address": f"tcp://{host}:{port}"} | IDENTITY
        with pytest.raises(InvalidRequest, match="an address of the host itself"):
            syslog.open_writer(options | {"outside-only": "true"})
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        if "::" not in host:
            syslog.open_writer(options).close()
            listener.setblocking(True)
            listener.accept()[0].close()
