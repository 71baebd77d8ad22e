"""The client with well-behaved and broken engines."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.cli.cli_errors import CliError, EngineError, Unreachable, UsageError
from jaula.cli.client import api_client
from jaula.cli.client.api_client import Client, filters, quote, target
from jaula.cli.client.detach_key_matcher import DetachKeys, sequence
from jaula.cli.client.hijack import HijackedStream, check_hijacked, exit_status
from jaula.cli.client.http_client import SocketAddress

Serve = Callable[..., Client]
READ_LIMIT = 1 << 20
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a client whose engine answers each connection with the given bytes, in order."""
    listener = socket.socket(socket.AF_UNIX)
    path = tmp_path / "s"
    listener.bind(str(path))
    listener.listen()
    threads: list[threading.Thread] = []

    def start(*answers: bytes | Callable[[socket.socket], None]) -> Client:
        def work() -> None:
            for answer in answers:
                peer, _ = listener.accept()
                with peer:
                    if callable(answer):
                        answer(peer)
                        continue
                    peer.recv(READ_LIMIT)
                    peer.sendall(answer)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        threads.append(thread)
        return Client(f"unix://{path}")

    yield start
    listener.close()
    for thread in threads:
        thread.join(5)


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}',
        b'HTTP/1.1 200 OK\nContent-Length: 7\n\n{"a":1}',
        CHUNKED + b'3\r\n{"a\r\n4;x=y\r\n":1}\r\n0\r\nT: 1\r\n\r\n',
        b'HTTP/1.1 200 OK\r\n\r\n{"a":1}',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}',
    ],
)
def test_every_framing_of_a_body_is_decoded(serve: Serve, answer: bytes) -> None:
    assert serve(answer).get("/x") == {"a": 1}


def test_a_connection_is_used_again_and_requests_may_be_sent_ahead(serve: Serve) -> None:
    def work(peer: socket.socket) -> None:
        for _ in range(2):
            peer.recv(READ_LIMIT)
            peer.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    client = serve(work)
    assert client.request("POST", "/a") == b""
    assert client.request("POST", "/b") == b""


def test_an_error_has_the_engines_message(serve: Serve) -> None:
    body = b'{"message":"No such container: x"}'
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with pytest.raises(EngineError) as caught:
        serve(answer).get("/x")
    assert caught.value.code == 404
    assert caught.value.message == "Error response from daemon: No such container: x"


@pytest.mark.parametrize("body", [b"", b"plain", b"[]", b'{"other":1}', b"\xff\xfe"])
def test_an_error_without_a_message_is_reported(serve: Serve, body: bytes) -> None:
    answer = b"HTTP/1.1 500 X\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with pytest.raises(EngineError):
        serve(answer).get("/x")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
)
def test_a_broken_answer_is_one_clear_error(serve: Serve, answer: bytes) -> None:
    with pytest.raises(Unreachable):
        serve(answer).get("/x")


def test_an_early_error_ends_an_upload(serve: Serve) -> None:
    def work(peer: socket.socket) -> None:
        peer.recv(100)
        peer.sendall(b'HTTP/1.1 400 Bad\r\nContent-Length: 17\r\n\r\n{"message":"bad"}')

    with pytest.raises(EngineError, match="bad"):
        serve(work).upload("/images/load", (), (b"x" * 65536 for _ in range(1000)))


def test_a_missing_engine_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="Cannot connect to the jaula engine at"):
        Client(f"unix://{tmp_path}/none").get("/x")


@pytest.mark.parametrize("text", ["http://x", "unix://", "ftp://a", "ssh://", "://"])
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(Unreachable):
        SocketAddress(text)


def test_targets_are_quoted() -> None:
    assert quote("a/b c\udcff%") == "a%2Fb%20c%FF%25"
    path = target("/x", (("a", True), ("b", False), ("c", ""), ("d", "é&"), ("e", 0)))
    assert path == f"{api_client.API}/x?a=1&d=%C3%A9%26&e=0"


def test_filters_are_a_document() -> None:
    assert filters([]) == ""
    assert filters(["name=a", "name=b", "Status = up"]) == (
        '{"name":{"a":true,"b":true},"status":{"up":true}}'
    )
    with pytest.raises(UsageError):
        filters(["name"])


def test_detach_keys_match_across_reads() -> None:
    keys = DetachKeys("")
    keys.watch(b"abc\x10")
    assert not keys.matched
    keys.watch(b"x\x10\x10")
    keys.watch(b"\x11")
    assert keys.matched


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a", b"a"), ("ctrl-@,ctrl-[,ctrl-_", b"\0\x1b\x1f")],
)
def test_detach_keys_are_parsed(text: str, keys: bytes) -> None:
    assert sequence(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ab", "ctrl-1", "a,,b", "é", "ctrl-ab"])
def test_invalid_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        sequence(text)


def attached(
    serve: Serve, work: Callable[[socket.socket], None], stdin: int | None
) -> HijackedStream:
    client = serve(work)
    return HijackedStream(check_hijacked(client.send_hijack("/attach")), framed=False, stdin=stdin)


def test_early_bytes_of_a_hijacked_stream_are_written(
    serve: Serve, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def work(peer: socket.socket) -> None:
        peer.recv(READ_LIMIT)
        peer.sendall(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly ")
        peer.sendall(b"late")

    attached(serve, work, None).run()
    assert capfdbinary.readouterr().out == b"early late"


def test_the_end_of_input_shuts_down_the_write_side(
    serve: Serve, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def work(peer: socket.socket) -> None:
        peer.recv(READ_LIMIT)
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        data = b""
        while piece := peer.recv(READ_LIMIT):
            data += piece
        peer.sendall(b"%d bytes" % len(data))

    read, write = os.pipe()

    def fill() -> None:
        left = b"x" * 3_000_000
        while left:
            left = left[os.write(write, left) :]
        os.close(write)

    thread = threading.Thread(target=fill)
    thread.start()
    attached(serve, work, read).run()
    thread.join()
    os.close(read)
    assert capfdbinary.readouterr().out == b"3000000 bytes"


def test_output_continues_if_the_container_does_not_read(
    serve: Serve, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def work(peer: socket.socket) -> None:
        peer.recv(READ_LIMIT)
        peer.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\n" + b"y" * 5_000_000)

    with open("/dev/zero", "rb") as zeros:
        attached(serve, work, zeros.fileno()).run()
    assert len(capfdbinary.readouterr().out) == 5_000_000


def test_the_exit_status_is_requested_again_after_a_restart(serve: Serve) -> None:
    good = (
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"StatusCode":7}\r\n0\r\n\r\n'
    )
    client = serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"", good)

    def ask() -> api_client.Connection:
        connection = client.connection()
        connection.send("POST", target("/containers/x/wait"))
        return connection

    first = ask()
    first.response_head()
    assert exit_status(first, ask) == 7


def test_an_unknown_exit_status_is_reported(serve: Serve) -> None:
    gone = b'HTTP/1.1 404 X\r\nContent-Length: 18\r\n\r\n{"message":"gone"}'
    client = serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", gone)

    def ask() -> api_client.Connection:
        connection = client.connection()
        connection.send("POST", target("/containers/x/wait"))
        return connection

    first = ask()
    first.response_head()
    with pytest.raises(CliError, match="cannot report the exit status") as caught:
        exit_status(first, ask)
    assert caught.value.status == 125
