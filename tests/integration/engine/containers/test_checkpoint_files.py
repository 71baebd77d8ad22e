"""Checkpoints that hold the container's files: its changed root and its volumes."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from harness import containers
from harness.engine import PrivateEngine

pytestmark = pytest.mark.criu

NAME = "files"
COUNT = (
    "i=0; while :; do i=$((i+1)); echo $i >/data/count; echo $i >/root/count; usleep 50000; done"
)
Run = Callable[..., None]


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def refused(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode != 0, (words, done.stdout)
    return done.stderr


def read(engine: PrivateEngine, path: str, name: str = NAME) -> str:
    return jaula(engine, "exec", name, "cat", path).strip()


def wait_for_count(engine: PrivateEngine, least: int, name: str = NAME) -> int:
    deadline = time.monotonic() + 20
    while True:
        done = engine.cli("jaula", "exec", name, "cat", "/data/count")
        text = done.stdout.strip()
        if done.returncode == 0 and text and int(text) >= least:
            return int(text)
        assert time.monotonic() < deadline, (done.stdout, done.stderr)
        time.sleep(0.05)


@pytest.fixture
def run(engine: PrivateEngine, busybox: str) -> Iterator[Run]:
    """Return a function that runs a container that counts in its root and in a volume."""

    def start(*flags: str) -> None:
        jaula(engine, "run", "-d", "--name", NAME, "-v", "counted:/data", *flags, busybox,
              "sh", "-c", COUNT)  # fmt: skip
        wait_for_count(engine, 3)

    yield start
    engine.cli("jaula", "rm", "-f", "-v", NAME)
    engine.cli("jaula", "volume", "rm", "counted")


def inspected(engine: PrivateEngine, checkpoint: str) -> dict[str, object]:
    text = jaula(engine, "checkpoint", "inspect", "-f", "{{json .}}", NAME, checkpoint)
    document: dict[str, object] = msgspec.json.decode(text)
    return document


def test_a_checkpoint_holds_root_and_volumes_of_one_moment(engine: PrivateEngine, run: Run) -> None:
    run("-v", "/etc:/bound:ro")
    jaula(engine, "checkpoint", "create", "--leave-running", "--with-files", NAME, "one")
    document = inspected(engine, "one")
    assert document["Usable"], document
    held = document["ContainerFiles"]
    assert isinstance(held, dict)
    assert held["RootChanged"]
    assert held["Excluded"] == ["/bound"]
    assert [(each["Name"], each["Destinations"]) for each in held["Volumes"]] == [
        ("counted", ["/data"])
    ]
    container = containers.inspect(engine, NAME)["Id"]
    files = engine.root / "lib/checkpoints" / container / "one/files"
    with tarfile.open(files / "rootfs-diff.tar") as root, tarfile.open(files / "volume-0.tar") as v:
        in_root, in_volume = root.extractfile("root/count"), v.extractfile("count")
        assert in_root is not None
        assert in_volume is not None
        counts = [int(file.read() or b"0") for file in (in_root, in_volume)]
    assert 0 <= counts[1] - counts[0] <= 1 or 0 in counts
    assert wait_for_count(engine, counts[1] + 2)


def test_a_checkpoint_without_files_says_so(engine: PrivateEngine, run: Run) -> None:
    run()
    jaula(engine, "checkpoint", "create", "--leave-running", NAME, "one")
    assert inspected(engine, "one")["ContainerFiles"] is None
