"""Malformed input at the socket: HTTP, JSON and upgrades, mutated from requests of real clients.

JAULA_FUZZ_SECONDS sets the duration (default 4 s, and 10 s in the slow run), JAULA_FUZZ_SEED the
random seed. A failure prints both, with the bytes that were sent.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import time
from pathlib import Path

import pytest

from harness.containers import eventually
from harness.engine import PrivateEngine

DURATIONS = [4, pytest.param(10, marks=pytest.mark.slow)]  # seconds
if "JAULA_FUZZ_SECONDS" in os.environ:
    DURATIONS = [float(os.environ["JAULA_FUZZ_SECONDS"])]
SEED = int(os.environ.get("JAULA_FUZZ_SEED", "1"))
SPARE = 20  # descriptors that the engine may have taken for its pool of sandboxes meanwhile
ANSWER = 8.0  # seconds in which an engine answers or hangs up

CREATE = b'{"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Memory": 67108864, "Binds": []}}'
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


def request(line: bytes, body: bytes = b"", headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    kind = b"Content-Type: application/json\r\n" if body else b""
    return line + b" HTTP/1.1\r\nHost: engine\r\n" + kind + length + headers + b"\r\n" + body


STREAM = re.compile(rb"HTTP/1\.1 200 .*\r\n\r\n", re.DOTALL)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CORPUS = (
    request(b"GET /_ping"),
    request(b"GET /v1.45/containers/json?all=1&filters=%7B%22name%22%3A%5B%22x%22%5D%7D"),
    request(b"POST /v1.45/containers/create?name=fuzz", CREATE),
    request(b"POST /v1.41/containers/absent/attach?stream=1&stdout=1", b"", UPGRADE) + b"early",
    request(b"POST /v1.45/exec/absent/start", b'{"Detach": false, "Tty": true}', UPGRADE),
    request(
        b"GET /containers/absent/attach/ws", b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    ),
    request(b"GET /events?since=0&until=1"),
    request(b"PUT /containers/absent/archive?path=/", b"", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n",
    request(b"POST /images/load", b"", CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n",
    request(b"GET /version") + request(b"GET /info"),
)
PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b"%",
        b"%zz",
        b"%00",
        b"%2e%2e/",
        b"../",
        b"\xff\xfe",
    ),
    *(b"Content-Length: 99999999999\r\n", b"Content-Length: -1\r\n", CHUNKED, UPGRADE, b"HTTP/9.9"),
    *(b"Expect: 100-continue\r\n", b"[" * 2000, b"{" * 50, b'"\\ud800"', b"1e999", b"null", b"-0"),
    *(
        b"ffffffffffffffff\r\n",
        b"A" * 9000,
        b"/v99.9/",
        b"\x16\x03\x01\x02\x00\x01",
        b"PRI * HTTP/2.0",
    ),
)


def mutated(numbers: random.Random) -> bytes:
    data = bytearray(numbers.choice(CORPUS))
    for _ in range(numbers.randint(1, 4)):
        at = numbers.randrange(len(data) + 1)
        match numbers.randrange(6):
            case 0:
                data[at:at] = numbers.choice(PIECES)
            case 1:
                del data[at : at + numbers.randint(1, 30)]
            case 2:
                data[at : at + 1] = bytes([numbers.randrange(256)])
            case 3:
                data = data[:at] or bytearray(b"G")
            case 4:
                data[at:at] = data[at : at + numbers.randint(1, 200)]
            case _:
                data[at:at] = numbers.randbytes(numbers.randint(1, 40))
    return bytes(data)


def exchange(path: Path, data: bytes) -> bytes:
    """Send `data`, shut down the write side and read until the engine closes.

    An event stream may continue. Any other open connection raises TimeoutError.
    """
    answer = bytearray()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ANSWER)
        client.connect(str(path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while not (b"/events" in data and STREAM.match(answer)):
                piece = client.recv(1 << 16)
                if not piece:
                    break
                answer += piece
    return bytes(answer)


def descriptors(engine: PrivateEngine) -> int:
    assert engine.process is not None
    return len(os.listdir(f"/proc/{engine.process.pid}/fd"))


@pytest.mark.parametrize("seconds", DURATIONS)
def test_any_input_is_answered_or_the_connection_is_closed(
    engine: PrivateEngine, busybox: str, seconds: float
) -> None:
    numbers = random.Random(SEED)
    before = descriptors(engine)
    deadline, sent = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        data = mutated(numbers)
        about = f"seed {SEED}, input {sent}: {data[:3000]!r}"
        try:
            answer = exchange(engine.socket, data)
        except TimeoutError:
            raise AssertionError(f"no end of the connection; {about}") from None
        for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE):
            assert status not in (b"500", b"502", b"503"), f"{answer[:2000]!r}; {about}"
        assert b"Traceback" not in answer, about
        sent += 1
    assert sent > seconds * 20, "hardly anything was sent"
    assert engine.request("GET", "/_ping").status == 200
    eventually(lambda: descriptors(engine) <= before + SPARE, "descriptors are closed")
    assert "Traceback" not in engine.log_tail(1 << 20)
    engine.request("DELETE", "/containers/fuzz?force=1")
