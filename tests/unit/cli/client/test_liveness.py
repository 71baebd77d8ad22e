"""A client whose engine does not answer: it waits for a slow one, and not for one that fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.cli.cli_errors import Unreachable
from jaula.cli.client import engine_liveness, http_client
from jaula.cli.client.api_client import Client

PONG = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "FIRST_ANSWER", 50)
    monkeypatch.setattr(engine_liveness, "INTERVAL", 0.05)
    monkeypatch.setattr(engine_liveness, "START_LIMIT", 0.5)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        yield sock


@pytest.fixture
def client(listener: socket.socket) -> Client:
    return Client(f"unix://{listener.getsockname()}")


def test_a_socket_that_no_engine_serves_is_an_error_after_a_time(client: Client) -> None:
    with pytest.raises(Unreachable, match="does not answer after 0 seconds"):
        client.get("/x")


def test_a_body_that_no_engine_reads_is_an_error_after_a_time(client: Client) -> None:
    with pytest.raises(Unreachable, match="does not answer"):
        list(client.upload("/build", (), (b"x" * 65536 for _ in range(1000))).chunks())


def answer_late(listener: socket.socket, seconds: float) -> None:
    """Answer each ping at once, and the first request after a time."""
    first, _ = listener.accept()
    listener.settimeout(0.02)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            peer, _ = listener.accept()
        except TimeoutError:
            continue
        with peer:
            peer.sendall(PONG)
    with first:
        first.recv(1 << 16)
        first.sendall(PONG)


def test_an_engine_that_answers_a_ping_is_waited_for_without_a_limit(
    listener: socket.socket, client: Client
) -> None:
    thread = threading.Thread(target=answer_late, args=(listener, 1.0))
    thread.start()
    assert client.request("POST", "/containers/x/wait") == b"OK"
    thread.join()


def states(*texts: str) -> Callable[[str], dict[str, str]]:
    iterator = iter(texts)
    last = {"": ""}

    def state(host: str) -> dict[str, str]:
        last[""] = next(iterator, last[""])
        return engine_liveness.parse(last[""])

    return state


@pytest.mark.parametrize(
    "texts",
    [
        ("ActiveState=failed\nSubState=failed\nNRestarts=5\nResult=exit-code",),
        ("ActiveState=activating\nSubState=auto-restart\nNRestarts=1\nResult=exit-code",),
        ("SubState=start\nNRestarts=1", "SubState=start\nNRestarts=2\nResult=exit-code"),
    ],
)
def test_a_service_that_fails_again_and_again_is_named(
    client: Client, monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...]
) -> None:
    monkeypatch.setattr(engine_liveness, "START_LIMIT", 60.0)
    monkeypatch.setattr(engine_liveness, "service_state", states(*texts))
    expected = "does not start: jaula.service fails with the result exit-code.*journalctl -u jaula"
    with pytest.raises(Unreachable, match=expected):
        client.get("/x")


@pytest.mark.parametrize(
    ("text", "restarts", "reason"),
    [
        ("SubState=start\nNRestarts=0\nResult=success", "0", ""),
        ("SubState=running\nNRestarts=3\nResult=success", "3", ""),
        ("SubState=failed\nNRestarts=3\nResult=success", "3", "fails"),
        ("SubState=start\nNRestarts=4\nResult=timeout", "3", "fails with the result timeout"),
        ("", "", ""),
        ("no property\nSubState", "0", ""),
    ],
)
def test_the_state_of_a_service_says_whether_it_fails(
    text: str, restarts: str, reason: str
) -> None:
    assert engine_liveness.failure(engine_liveness.parse(text), restarts) == reason


def test_systemd_is_not_asked_about_a_socket_of_another_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("systemctl runs"))
    assert engine_liveness.service_state("unix:///tmp/other.sock") == {}
