"""Syslog over TLS: delivery, without any delay of the container."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.certificates import Authority
from jaula.errors import InvalidRequest
from jaula.logs import buffered_sender, log_connection, open_writer, tls_sender, validate
from jaula.logs.log_driver import LogWriter

IDENTITY = {"container-id": "a" * 64, "container-name": "web", "tag": "web/1"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server_files(authority: Authority) -> Path:
    return authority.server()


@pytest.fixture(scope="module")
def client_files(authority: Authority) -> Path:
    return authority.sign("jaula")


class Daemon:
    """A syslog daemon that requires certificates; ``text`` is its input."""

    def __init__(self, files: Path, *, accepts: bool = True) -> None:
        self.text = b""
        self.people: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files / "cert.pem", files / "key.pem")
        self._context.load_verify_locations(files / "ca.pem")
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        if accepts:
            self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(client, server_side=True) as secured:
                    self._open.append(secured)
                    subject = (secured.getpeercert() or {}).get("subject", ())
                    self.people += [v for part in subject for _, v in part]  # type: ignore[misc]
                    while data := secured.recv(65536):
                        self.text += data
            except OSError:
                continue

    def cut(self) -> None:
        """Break every connection."""
        for sock in self._open:
            sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._thread.is_alive():
            self._thread.join(10)


@pytest.fixture
def daemon(server_files: Path) -> Iterator[Daemon]:
    made = Daemon(server_files)
    yield made
    made.close()


def options(port: int, files: Path | None, **more: str) -> dict[str, str]:
    result = {"syslog-address": f"tcp+tls://127.0.0.1:{port}"} | IDENTITY
    if files is not None:
        names = {"ca-cert": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
        result |= {f"syslog-tls-{key}": str(files / name) for key, name in names.items()}
    return result | more


def write_until(writer: LogWriter, line: bytes, done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not done():
        writer.write("stdout", line)
        time.sleep(0.005)
        assert time.monotonic() < deadline, writer.error


def test_lines_arrive_and_the_client_sends_its_certificate(
    daemon: Daemon, client_files: Path
) -> None:
    writer = open_writer("syslog", options(daemon.port, client_files), "")
    write_until(writer, b"hello\n", lambda: b": hello\n" in daemon.text)
    for number in range(500):
        writer.write("stdout", b"line %d\n" % number)
    writer.close()
    deadline = time.monotonic() + 10
    while b": line 499\n" not in daemon.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert daemon.people == ["jaula"]
    assert [f": line {n}\n".encode() in daemon.text for n in range(500)] == [True] * 500
    assert not writer.dropped


def test_one_line_is_enough(daemon: Daemon, client_files: Path) -> None:
    writer = open_writer("syslog", options(daemon.port, client_files), "")
    writer.write("stdout", b"the only one\n")
    deadline = time.monotonic() + 10
    while b": the only one\n" not in daemon.text:
        assert time.monotonic() < deadline, writer.error
        time.sleep(0.01)
    writer.close()


def test_a_broken_connection_is_reestablished(
    daemon: Daemon, client_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaula.logs.buffered_sender._RECONNECT_INTERVAL", 0.01)
    writer = open_writer("syslog", options(daemon.port, client_files), "")
    write_until(writer, b"first\n", lambda: b": first\n" in daemon.text)
    daemon.cut()
    write_until(writer, b"second\n", lambda: b": second\n" in daemon.text)
    writer.close()


def test_a_daemon_that_cannot_be_trusted_gets_nothing(
    daemon: Daemon, client_files: Path, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other").file
    given = options(daemon.port, client_files) | {"syslog-tls-ca-cert": str(other)}
    writer = open_writer("syslog", given, "")
    write_until(writer, b"secret\n", lambda: writer.error)
    assert "certificate verify failed" in writer.error
    writer.close()
    assert daemon.text == b""
    careless = open_writer("syslog", given | {"syslog-tls-skip-verify": "true"}, "")
    write_until(careless, b"public\n", lambda: b": public\n" in daemon.text)
    careless.close()


def test_a_daemon_that_never_answers_delays_the_container_for_a_bounded_time(
    server_files: Path, client_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake at the start and the last records at the end have two seconds each."""
    assert (
        log_connection._HANDSHAKE_TIMEOUT,
        buffered_sender._CLOSE_TIMEOUT,
        tls_sender._CLOSE_TIMEOUT,
    ) == (2.0, 2.0, 2.0)
    monkeypatch.setattr(log_connection, "_HANDSHAKE_TIMEOUT", 0.2)
    monkeypatch.setattr(buffered_sender, "_CLOSE_TIMEOUT", 0.2)
    monkeypatch.setattr(tls_sender, "_CLOSE_TIMEOUT", 0.2)
    silent = Daemon(server_files, accepts=False)
    try:
        refused = options(silent.port, client_files) | {"max-buffer-size": "10k"}
        begin = time.monotonic()
        writer = open_writer("syslog", refused, "")
        assert 0.2 <= time.monotonic() - begin < 2.2
        begin = time.monotonic()
        for _ in range(100):
            writer.write("stdout", b"x" * 1000 + b"\n")
        assert time.monotonic() - begin < 1
        assert writer.dropped > 80_000
        begin, processor = time.monotonic(), time.process_time()
        writer.close()
        assert 0.2 <= time.monotonic() - begin < 4.2
        assert time.process_time() - processor < 0.1  # it waits, it does not spin
    finally:
        silent.close()


@pytest.mark.parametrize(
    "given",
    [
        {"syslog-address": "tcp+tls://h:1", "syslog-tls-cert": "/c"},
        {"syslog-address": "tcp+tls://h:1", "syslog-tls-ca-cert": "relative"},
        {"syslog-address": "tcp+tls://h:1", "syslog-tls-skip-verify": "perhaps"},
        {"syslog-address": "tcp://h:1", "syslog-tls-ca-cert": "/c"},
        {"syslog-address": "tcp://h:1", "syslog-tls-skip-verify": "true"},
        {"syslog-address": "tcp+tls://h:0"},
    ],
)
def test_invalid_options_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        validate("syslog", given)


def test_a_missing_file_is_reported(client_files: Path) -> None:
    given = options(1, client_files) | {"syslog-tls-ca-cert": "/nowhere.pem"}
    with pytest.raises(InvalidRequest, match=r"/nowhere\.pem cannot be used: No such file"):
        open_writer("syslog", given, "")
