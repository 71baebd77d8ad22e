"""Long connections to a real engine: they wait without cost and leak nothing."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from conftest import load_image
from harness.engine import PrivateEngine

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


@pytest.fixture
def container(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """A created container that copies its input to its output."""
    name = f"jlt-{uuid.uuid4().hex[:12]}"
    _create(engine, name, busybox, ["cat"], OpenStdin=True, StdinOnce=True)
    yield name
    engine.request("DELETE", f"/containers/{name}?force=1")


def _create(
    engine: PrivateEngine, name: str, image: str, command: list[str], **more: object
) -> None:
    body = {"Image": image, "Cmd": command} | more
    created = engine.request("POST", f"/v1.45/containers/create?name={name}", body)
    assert created.status == 201, created


def _open(engine: PrivateEngine, request: str, headers: str = "") -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(20)
    client.connect(str(engine.socket))
    client.sendall(f"{request} HTTP/1.1\r\nHost: docker\r\n{headers}\r\n".encode())
    return client


def _head(client: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = client.recv(1)
        assert piece, head
        head += piece
    return head


def _rest(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


_ROUNDS = 20
"""Clients of each kind; the sockets of spare inits, which come and go, are fewer than half."""


def _descriptors(engine: PrivateEngine) -> int:
    """Open descriptors but those of prepared sandboxes, which come and go by themselves."""
    assert engine.process is not None
    directory = Path(f"/proc/{engine.process.pid}/fd")
    count = 0
    for link in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += not os.readlink(link).startswith(("net:", "user:"))
    return count


def _settles(engine: PrivateEngine, limit: int) -> bool:
    for _ in range(100):
        if _descriptors(engine) <= limit:
            return True
        time.sleep(0.05)
    return False


def test_wait_answers_its_head_before_the_start_and_its_body_at_the_end(
    engine: PrivateEngine, container: str
) -> None:
    path = f"/v1.45/containers/{container}"
    with closing(_open(engine, f"POST {path}/wait?condition=next-exit")) as waiter:
        assert b" 200 " in _head(waiter)
        assert engine.request("POST", f"{path}/start").status == 204
        assert engine.request("POST", f"{path}/kill").status == 204
        length = int(waiter.makefile("rb").readline(), 16)
        assert length == len('{"StatusCode":137}\n')


def test_bytes_that_come_with_the_head_reach_a_program_that_starts_later(
    engine: PrivateEngine, container: str
) -> None:
    path = f"/v1.45/containers/{container}"
    request = f"POST {path}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with closing(client):
        client.settimeout(20)
        client.connect(str(engine.socket))
        client.sendall(f"{request} HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\nearly ".encode())
        head = _head(client)
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        assert b"application/vnd.docker.multiplexed-stream" in head
        client.sendall(b"late")
        client.shutdown(socket.SHUT_WR)
        assert engine.request("POST", f"{path}/start").status == 204
        stream = _rest(client)
    text = b""
    while stream:
        assert stream[:4] == b"\x01\0\0\0"
        size = int.from_bytes(stream[4:8], "big")
        text, stream = text + stream[8 : 8 + size], stream[8 + size :]
    assert text == b"early late"


def test_clients_that_leave_give_their_descriptors_back(
    engine: PrivateEngine, container: str
) -> None:
    path = f"/v1.45/containers/{container}"
    assert engine.request("POST", f"{path}/start").status == 204
    before = _descriptors(engine)
    requests = [
        "GET /v1.45/events",
        f"GET {path}/stats",
        f"GET {path}/logs?follow=1&stdout=1",
        f"POST {path}/wait",
    ]
    for _ in range(_ROUNDS):
        clients = [_open(engine, request) for request in requests]
        for client in clients[:-1]:
            assert b" 200 " in _head(client)
        for client in clients:
            client.close()
        with closing(_open(engine, f"POST {path}/attach?stream=1&stdout=1", UPGRADE)) as client:
            assert b" 101 " in _head(client)
    assert _settles(engine, before + _ROUNDS // 2), "descriptors of clients that left"


def test_an_attached_stream_outlives_the_engine(new_engine: Callable[[], PrivateEngine]) -> None:
    engine = new_engine()
    name = "jlt-outlives"
    _create(engine, name, load_image(engine, "busybox"), ["cat"], OpenStdin=True)
    path = f"/v1.45/containers/{name}"
    assert engine.request("POST", f"{path}/start").status == 204
    request = f"POST {path}/attach?stream=1&stdin=1&stdout=1"
    with closing(_open(engine, request, UPGRADE)) as client:
        _head(client)
        answers = []
        for act, word in (
            (None, b"joined\n"),  # the echo says that the shim has the stream
            (engine.kill, b"still here\n"),
            (engine.start, b"and now\n"),
        ):
            if act is not None:
                act()
            try:
                client.sendall(word)
                answers.append(client.recv(100)[8:])
            except OSError as error:
                answers.append(repr(error).encode())
        assert answers == [b"joined\n", b"still here\n", b"and now\n"]


def test_many_clients_at_once_get_their_own_answers(engine: PrivateEngine, busybox: str) -> None:
    def life(number: int) -> tuple[int, int]:
        name = f"jlt-{uuid.uuid4().hex[:12]}"
        _create(engine, name, busybox, ["sh", "-c", f"exit {number}"])
        with closing(_open(engine, f"POST /containers/{name}/wait?condition=removed")) as waiter:
            _head(waiter)
            assert engine.request("POST", f"/containers/{name}/start").status == 204
            while True:
                reply = engine.request("DELETE", f"/containers/{name}")
                if reply.status == 204:
                    break
                assert reply.status == 409, reply
                time.sleep(0.02)
            lines = waiter.makefile("rb")
            lines.readline()
            return number, json.loads(lines.readline())["StatusCode"]

    with ThreadPoolExecutor(8) as pool:
        for number, status in pool.map(life, range(1, 17)):
            assert number == status


@pytest.mark.parametrize("headers", ["", UPGRADE], ids=["response", "upgrade"])
@pytest.mark.parametrize("remove", [False, True], ids=["kept", "removed"])
def test_output_of_a_short_program_is_there_before_its_exit_status(
    engine: PrivateEngine, busybox: str, headers: str, remove: bool
) -> None:
    """A client of dockerode reads until the exit status arrives on another connection."""
    for number in range(8):
        name = f"jlt-short-{number}-{uuid.uuid4().hex[:8]}"
        command = ["sh", "-c", "echo out; echo err >&2; exit 3"]
        _create(engine, name, busybox, command, HostConfig={"AutoRemove": remove})
        try:
            request = f"POST /containers/{name}/attach?stream=1&stdout=1&stderr=1"
            with closing(_open(engine, request, headers)) as client:
                _head(client)
                waiting = _open(engine, f"POST /containers/{name}/wait?condition=next-exit")
                with closing(waiting):
                    _head(waiting)
                    assert engine.request("POST", f"/containers/{name}/start").status == 204
                    assert b'"StatusCode":3' in waiting.recv(4096)
                client.setblocking(False)
                output = client.recv(4096)  # no wait: the exit status is there
                client.setblocking(True)
                output += _rest(client)
            assert b"out\n" in output, number
            assert b"err\n" in output, number
        finally:
            engine.request("DELETE", f"/containers/{name}?force=1")
