"""Clients that leave in the middle of a request: its work ends, and nothing of it stays."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers, images
from harness.engine import SLOW, PrivateEngine

VOLUMES = 500
PARTIAL = "new-"  # name of a blob that is being written
WAIT = 20.0 * SLOW  # seconds


@pytest.fixture(scope="module")
def private() -> Iterator[PrivateEngine]:
    made = PrivateEngine(238)
    made.start(own_network=True)
    try:
        images.import_image(made, "gone", images.busybox_entries())
        yield made
    finally:
        made.discard()


def send(engine: PrivateEngine, line: str, document: Any = None) -> socket.socket:
    """Send a whole request, and return its connection."""
    body = b"" if document is None else json.dumps(document).encode()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(engine.socket))
    head = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def statuses(engine: PrivateEngine, action: str) -> list[int]:
    """Return the status of each request with an action in the audit log."""
    lines = [
        json.loads(line)
        for file in (engine.root / "lib/audit").iterdir()
        if file.is_file() and file.name != "head"
        for line in file.read_text().splitlines()
    ]
    return [line["status"] for line in lines if line["action"] == action]


def volumes(engine: PrivateEngine) -> list[str]:
    return [name for name in os.listdir(engine.root / "lib/volumes") if name[0] != "."]


def test_a_create_ends_with_its_client(private: PrivateEngine) -> None:
    body = {"Image": "gone", "Cmd": ["true"], "Volumes": {f"/v{i}": {} for i in range(VOLUMES)}}
    with contextlib.closing(send(private, "POST /containers/create?name=left", body)):
        wait(lambda: volumes(private))
    wait(lambda: statuses(private, "container create"))
    assert statuses(private, "container create") == [499]
    assert volumes(private) == []
    assert private.request("GET", "/containers/json?all=1").json() == []
    assert os.listdir(private.root / "lib/containers") == []
    again = private.request("POST", "/containers/create?name=left", body | {"Volumes": {}})
    assert again.status == 201
    private.remove_containers()


def test_a_prune_ends_with_its_client(private: PrivateEngine) -> None:
    for number in range(200):
        assert private.request("POST", "/volumes/create", {"Name": f"pruned{number}"}).status == 201
    line = 'POST /volumes/prune?filters={"all":["true"]}'
    with contextlib.closing(send(private, line)):
        wait(lambda: len(volumes(private)) < 200)
    wait(lambda: statuses(private, "volume prune"))
    assert statuses(private, "volume prune") == [499]
    left = volumes(private)
    assert left
    for name in left:
        assert private.request("DELETE", f"/volumes/{name}").status == 204


def test_a_commit_ends_with_its_client(private: PrivateEngine) -> None:
    before = private.request("GET", "/images/json?all=1").json()
    with containers.running(private, "gone") as name:
        fill = "dd if=/dev/zero of=/big bs=1048576 count=512 2>/dev/null"
        assert private.cli("jaula", "exec", name, "sh", "-c", fill).returncode == 0
        with contextlib.closing(send(private, f"POST /commit?container={name}&repo=never")):
            wait(lambda: incomplete_blobs(private))
        wait(lambda: statuses(private, "container commit"))
    assert statuses(private, "container commit") == [499]
    assert private.request("GET", "/images/json?all=1").json() == before
    assert incomplete_blobs(private) == []


def incomplete_blobs(engine: PrivateEngine) -> list[Path]:
    """Return the files of the blobs that are being written."""
    return [p for p in (engine.root / "lib").rglob(f"{PARTIAL}*") if "blobs" in p.parts]


def test_a_client_that_only_ends_its_input_gets_its_container(private: PrivateEngine) -> None:
    body = {"Image": "gone", "Cmd": ["true"], "Volumes": {f"/v{i}": {} for i in range(50)}}
    with contextlib.closing(send(private, "POST /containers/create", body)) as sock:
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(WAIT)
        assert sock.recv(12) == b"HTTP/1.1 201"
    private.remove_containers()
