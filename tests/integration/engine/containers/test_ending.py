"""Use cases against containers that are just ending: Docker's answer at every moment of an exit.

A container runs for a few milliseconds, again and again, while a client repeats one request. So the
request meets a running container, an exiting one, an exited one and a starting one.
``JAULA_ENDING_ROUNDS`` is the number of runs for each use case.
"""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from harness import containers
from harness.engine import PrivateEngine, Reply

ROUNDS = int(os.environ.get("JAULA_ENDING_ROUNDS", "12"))
UseCase = Callable[[PrivateEngine, str], Reply]
NOT_RUNNING = ("is not running", "is paused", "is not paused", "is already paused")


def archive() -> bytes:
    """Return a tar archive with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("copied")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    return buffer.getvalue()


ARCHIVE = archive()


def run_exec(engine: PrivateEngine, name: str) -> Reply:
    created = engine.request("POST", f"/containers/{name}/exec", {"Cmd": ["true"]})
    if created.status != 201:
        return created
    return engine.request("POST", f"/exec/{created.json()['Id']}/start", {"Detach": True})


def pause(engine: PrivateEngine, name: str) -> Reply:
    reply = engine.request("POST", f"/containers/{name}/pause")
    undone = engine.request("POST", f"/containers/{name}/unpause")
    return reply if reply.status not in (204, 409) else undone


def copy_in(engine: PrivateEngine, name: str) -> Reply:
    return engine.request("PUT", f"/containers/{name}/archive?path=/tmp", ARCHIVE)


def get(path: str) -> UseCase:
    return lambda engine, name: engine.request("GET", f"/containers/{name}/{path}")


def post(path: str, body: Any = None) -> UseCase:
    return lambda engine, name: engine.request("POST", f"/containers/{name}/{path}", body)


def checkpoint(engine: PrivateEngine, name: str) -> Reply:
    one = f"one-{os.urandom(8).hex()}"
    body = {"CheckpointID": one, "Exit": False}
    reply = engine.request("POST", f"/containers/{name}/checkpoints", body)
    if reply.status == 201:
        engine.request("DELETE", f"/containers/{name}/checkpoints/{one}")
    return reply


def commit(engine: PrivateEngine, name: str) -> Reply:
    reply = engine.request("POST", f"/commit?container={name}")
    if reply.status == 201:
        engine.request("DELETE", f"/images/{reply.json()['Id']}?force=1")
    return reply


USE_CASES: dict[str, tuple[UseCase, frozenset[int]]] = {
    "checkpoint": (checkpoint, frozenset({201, 409})),
    "commit": (commit, frozenset({201})),
    "pause": (pause, frozenset({204, 409})),
    "top": (get("top"), frozenset({200, 409})),
    "stats": (get("stats?stream=0&one-shot=1"), frozenset({200})),
    "stats-two": (get("stats?stream=0"), frozenset({200})),
    "copy-out": (get("archive?path=/etc/passwd"), frozenset({200})),
    "copy-in": (copy_in, frozenset({200})),
    "path-stat": (
        lambda engine, name: engine.request(
            "HEAD", f"/containers/{name}/archive?path={quote('/etc')}"
        ),
        frozenset({200}),
    ),
    "exec": (run_exec, frozenset({200, 404, 409})),  # 404: its container ended before the start
    "update": (post("update", {"Memory": 64 << 20, "MemorySwap": 128 << 20}), frozenset({200})),
    "export": (get("export"), frozenset({200})),
    "inspect": (get("json?size=1"), frozenset({200})),
    "spec": (get("jaula/spec"), frozenset({200, 404})),
    "changes": (get("changes"), frozenset({200})),
    "resize": (post("resize?h=20&w=20"), frozenset({200, 409})),
    "kill": (post("kill?signal=URG"), frozenset({204, 409})),
    "stop": (post("stop?t=1"), frozenset({204, 304})),
    "logs": (get("logs?stdout=1"), frozenset({200})),
}


@pytest.fixture
def ending(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    name = containers.unique("ending")
    body = {"Image": busybox, "Cmd": ["sh", "-c", "sleep 0.0$((1 + $(date +%s) % 5))"]}
    created = engine.request("POST", f"/containers/create?name={name}", body)
    assert created.status == 201, created
    yield name
    engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize(
    "use_case",
    [
        pytest.param(each, marks=pytest.mark.criu) if each == "checkpoint" else each
        for each in USE_CASES
    ],
)
def test_a_container_that_is_ending_gets_the_answers_of_docker(
    engine: PrivateEngine, ending: str, use_case: str
) -> None:
    act, expected = USE_CASES[use_case]
    answers: Counter[tuple[int, str]] = Counter()
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            reply = act(engine, ending)
            text = ""
            if reply.status not in expected:
                text = reply.body.decode(errors="replace")
            elif reply.status == 409:
                message = reply.json()["message"]
                text = "" if any(words in message for words in NOT_RUNNING) else message
            answers[reply.status, text] += 1

    clients = [threading.Thread(target=client) for _ in range(2)]
    for thread in clients:
        thread.start()
    starts: Counter[tuple[int, str]] = Counter()
    try:
        for _ in range(ROUNDS):
            reply = engine.request("POST", f"/containers/{ending}/start")
            paused = reply.status == 409 and b"paused" in reply.body
            text = "" if reply.status in (204, 304) or paused else reply.body.decode()
            starts[reply.status, text] += 1
            engine.request("POST", f"/containers/{ending}/wait")
    finally:
        over.set()
        for thread in clients:
            thread.join()
    print(use_case, dict(answers), dict(starts))
    assert not [answer for answer in (*answers, *starts) if answer[1]]
    state = engine.request("GET", f"/containers/{ending}/json").json()["State"]
    assert state["Status"] == "exited"
