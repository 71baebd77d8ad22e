"""Many concurrent clients, and clients that do not read: no error, no leak, constant memory.

JAULA_LOAD_SECONDS sets the duration (default 5 s, and 15 s in the slow run), JAULA_LOAD_CLIENTS the
number of clients (100).
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness.containers import running
from harness.engine import PrivateEngine

DURATIONS = [5, pytest.param(15, marks=pytest.mark.slow)]  # seconds
if "JAULA_LOAD_SECONDS" in os.environ:
    DURATIONS = [float(os.environ["JAULA_LOAD_SECONDS"])]
CLIENTS = int(os.environ.get("JAULA_LOAD_CLIENTS", "100"))
PATIENCE = 120.0  # seconds that one request may take while all others are asked, too
GROWTH = 24 << 20  # bytes that the engine may have more after a crowd than after a smaller one
NewEngine = Callable[..., PrivateEngine]
MEBIBYTE = 1 << 20


def memory(engine: PrivateEngine) -> int:
    """Return the engine's private memory in bytes (smaps_rollup: private, clean and dirty)."""
    assert engine.process is not None
    text = Path(f"/proc/{engine.process.pid}/smaps_rollup").read_text()
    return 1024 * sum(int(row.split()[1]) for row in text.splitlines() if row.startswith("Private"))


class Clients:
    """Threads that repeat the requests of a client until the time is over."""

    def __init__(self, engine: PrivateEngine, image: str) -> None:
        self.engine, self.image = engine, image
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def work(self, seconds: float, clients: int) -> None:
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._client, args=(n, until)) for n in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self, number: int, until: float) -> None:
        turn = 0
        while time.monotonic() < until and len(self.wrong) < 20:
            turn += 1
            try:
                self._life(f"load-{number}-{turn}", kept=(number + turn) % 2 == 0)
            except Exception as error:  # noqa: BLE001 - each is reported
                self.wrong.append(f"client {number}, turn {turn}: {error!r}")

    def _life(self, name: str, *, kept: bool) -> None:
        command = ["sh", "-c", "echo hello; exec sleep 60"] if kept else ["echo", "hello"]
        body = {"Image": self.image, "Cmd": command, "HostConfig": {"NetworkMode": "none"}}
        id = self._ask("POST", f"/containers/create?name={name}", body, 201).json()["Id"]
        try:
            self._ask("POST", f"/containers/{id}/start", None, 204)
            if kept:
                exec_body = {"Cmd": ["true"], "AttachStdout": True}
                made = self._ask("POST", f"/containers/{id}/exec", exec_body, 201).json()["Id"]
                self._ask("POST", f"/exec/{made}/start", {"Detach": True}, 200)
                self._ask("GET", f"/containers/{id}/stats?stream=0&one-shot=1", None, 200)
                self._ask("GET", "/containers/json", None, 200)
            else:
                ended = self._ask("POST", f"/containers/{id}/wait", None, 200).json()
                assert ended["StatusCode"] == 0, ended
                logs = self._ask("GET", f"/containers/{id}/logs?stdout=1", None, 200).body
                assert logs == b"\1\0\0\0\0\0\0\6hello\n", logs
        finally:
            self._ask("DELETE", f"/containers/{id}?force=1", None, 204)
        self.done["kept" if kept else "ended"] += 1

    def _ask(self, method: str, path: str, body: Any, expected: int) -> Any:
        reply = self.engine.request(method, path, body, timeout=PATIENCE)
        assert reply.status == expected, f"{method} {path}: {reply.status} {reply.body[:300]!r}"
        return reply


ROOM = 30_000_000  # ids for 457 containers


@pytest.mark.parametrize("seconds", DURATIONS)
def test_many_clients_get_no_error_and_leak_nothing(
    new_engine: NewEngine, worker_index: int, seconds: float
) -> None:
    first = 3_260_000_000 + worker_index % 4 * ROOM  # those of another run are not free
    engine = new_engine("--subid-start", str(first), "--subid-count", str(ROOM))
    crowd = Clients(engine, load_image(engine, "busybox"))
    crowd.work(min(seconds / 3, 20), CLIENTS)  # pools are filled, modules and caches are there
    small = memory(engine)
    crowd.work(seconds, CLIENTS)
    assert not crowd.wrong, "\n".join(crowd.wrong) + engine.log_tail()
    assert crowd.done["kept"] >= CLIENTS // 4, crowd.done
    assert crowd.done["ended"] >= CLIENTS // 4, crowd.done
    left = engine.request("GET", '/containers/json?all=1&filters={"name":["load-"]}').json()
    assert left == []
    grown = memory(engine) - small
    assert grown < GROWTH, f"{grown >> 20} MiB more after {crowd.done.total()} containers"


def non_reading_client(engine: PrivateEngine, request: str) -> socket.socket:
    """Send a request and never read the response."""
    client = socket.socket(socket.AF_UNIX)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(str(engine.socket))
    client.sendall(request.encode())
    return client


FLOOD = "yes 0123456789012345678901234567890123456789"
STREAMS = {
    "attach": "POST /containers/{name}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: e\r\n"
    "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
    "logs": "GET /containers/{name}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: e\r\n\r\n",
    "stats": "GET /containers/{name}/stats?stream=1 HTTP/1.1\r\nHost: e\r\n\r\n",
    "events": "GET /events HTTP/1.1\r\nHost: e\r\n\r\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("stream", STREAMS)
def test_a_client_that_does_not_read_costs_little_and_blocks_no_other(
    engine: PrivateEngine, busybox: str, stream: str
) -> None:
    command = ("sh", "-c", f"{FLOOD}; sleep 60") if stream != "events" else ("sleep", "60")
    with running(engine, busybox, *command, flags=("--init",)) as name:
        before = memory(engine)
        silent = [non_reading_client(engine, STREAMS[stream].format(name=name)) for _ in range(10)]
        try:
            started = time.monotonic()
            while time.monotonic() < started + 3:
                if stream == "events":  # each makes many events
                    for path in ("pause", "unpause"):
                        engine.request("POST", f"/containers/{name}/{path}")
                assert engine.request("GET", f"/containers/{name}/json", timeout=5).status == 200
            if stream != "events":
                made = engine.cli("jaula", "exec", name, "echo", "still here", timeout=20)
                assert made.stdout == "still here\n", made.stderr
            assert memory(engine) - before < 16 * MEBIBYTE
        finally:
            for client in silent:
                client.close()
    assert json.loads(engine.request("GET", "/version").body)["ApiVersion"]
