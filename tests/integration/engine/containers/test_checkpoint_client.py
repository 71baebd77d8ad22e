"""The verification of a checkpoint ends with its client: its container is free again."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.containers import eventually
from harness.engine import PrivateEngine
from jaula.features.checkpoint.checkpoint_store import (
    CheckpointFile,
    CheckpointFiles,
    CheckpointStore,
    ContainerDescription,
    Manifest,
)
from jaula.spec.api_documents import ContainerCreate

SIZE = 1 << 42  # bytes of a hole whose digest takes an hour


@pytest.fixture
def container(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    """Return a container with a checkpoint ``one`` that has a very large hole."""
    name = containers.unique("digest")
    body = {"Image": busybox, "Cmd": ["true"]}
    id = engine.request("POST", f"/containers/create?name={name}", body).json()["Id"]
    store = CheckpointStore(Path(engine.root, "lib/checkpoints"))
    images = store.begin(id, "one")
    with (images / "pages-1.img").open("wb") as file:
        file.truncate(SIZE)
    hole = CheckpointFile("pages-1.img", SIZE, "0" * 64)
    described = ContainerDescription(name, ContainerCreate(image=busybox), "sha256:" + "0" * 64)
    store.accept(
        images,
        Manifest(
            id, "one", 0, "4.2", "6", "x86_64", busybox,
            files=(hole,), description=described, held=CheckpointFiles(),
        ),
    )  # fmt: skip
    yield name
    engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize(
    "path",
    [
        "POST /containers/{}/start?checkpoint=one",
        "POST /jaula/containers/{}/rollback/one",
        "GET /jaula/containers/{}/checkpoints/one",
    ],
)
def test_a_verification_ends_when_its_client_is_gone(
    engine: PrivateEngine, container: str, path: str
) -> None:
    def busy() -> float:
        """Return the processor time of the engine, in seconds."""
        assert engine.process is not None
        fields = Path(f"/proc/{engine.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        head = path.format(container) + " HTTP/1.1\r\nHost: jaula\r\nContent-Length: 0\r\n\r\n"
        client.sendall(head.encode())
        begun = busy()
        eventually(lambda: busy() > begun + 0.5, "the engine computes the digest")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)

    def is_idle() -> bool:
        before = busy()
        time.sleep(0.5)
        return busy() < before + 0.2

    eventually(is_idle, "the digest is given up")
    assert engine.request("DELETE", f"/containers/{container}").status == 204


def test_a_client_that_has_finished_its_input_gets_its_answer(
    engine: PrivateEngine, container: str
) -> None:
    """A half-closed connection is not one whose client is gone."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        head = f"POST /containers/{container}/start?checkpoint=one HTTP/1.1\r\nHost: jaula\r\n\r\n"
        client.sendall(head.encode())
        client.shutdown(socket.SHUT_WR)
        client.settimeout(2)
        with pytest.raises(TimeoutError):
            client.recv(1)
