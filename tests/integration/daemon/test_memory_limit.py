"""An engine in a memory cgroup with a low limit: spare processes make room, starts are refused."""

from __future__ import annotations

import itertools
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import image_archive, load_image
from harness import leaks
from harness.engine import PrivateEngine

LIMIT = 60 << 20  # bytes
MANY = 30  # containers, more than the limit has room for


class LimitedEngine(PrivateEngine):
    """An engine that is in a cgroup from its first instruction on."""

    cgroup = Path()

    def __init__(self, index: int) -> None:
        """Put the root on a disk, as engines have it: a tmpfs would count in the limit."""
        super().__init__(index, root=Path(tempfile.mkdtemp(prefix="jlt", dir="/var/tmp")))

    def command(self) -> list[str]:
        script = f'echo $$ >{self.cgroup}/cgroup.procs; exec "$@"'
        return ["sh", "-c", script, "sh", *super().command()]


@pytest.fixture
def cgroup() -> Iterator[Path]:
    root = Path("/sys/fs/cgroup")
    legacy = root / "memory"
    if not legacy.is_dir() and "memory" not in (root / "cgroup.subtree_control").read_text():
        (root / "cgroup.subtree_control").write_text("+memory")
    place = (legacy if legacy.is_dir() else root) / f"jaula-test-{secrets.token_hex(4)}"
    place.mkdir()
    name = "memory.limit_in_bytes" if legacy.is_dir() else "memory.max"
    (place / name).write_text(str(LIMIT))
    yield place
    deadline = time.monotonic() + 20
    while (place / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    place.rmdir()


def test_images_are_loaded_and_containers_run(cgroup: Path, worker_index: int) -> None:
    """Its own network keeps the firewall rules of other engines out of its memory."""
    engine = LimitedEngine((worker_index + 83) % 250 + 1)
    engine.cgroup = cgroup
    with leaks.nothing_left(engine, own_network=True):
        time.sleep(3)  # it has all spare processes
        for _ in range(3):
            load_image(engine, "busybox")
        assert engine.process is not None
        run = ("run", "-d", "--network", "none", "busybox", "sleep", "1000")
        started = [engine.cli("jaula", *run) for _ in range(3)]
        assert [each.returncode for each in started] == [0, 0, 0], engine.log_tail()
        ids = [each.stdout.strip() for each in started]
        load_image(engine, "busybox")
        assert engine.cli("jaula", "exec", ids[0], "echo", "here").stdout == "here\n"
        assert engine.process.poll() is None, engine.log_tail()
        assert engine.cli("jaula", "rm", "-f", *ids).returncode == 0
        engine.kill()
        engine.start(own_network=True)  # which removes what killed spare inits have left


STEPS = ("exec", "load", "logs")


def _step(engine: PrivateEngine, step: str, name: str) -> None:
    if step == "exec":
        done = engine.cli("jaula", "exec", name, "echo", "here")
        assert done.stdout == "here\n", done.stderr
    elif step == "load":
        done = engine.cli("jaula", "load", "-i", str(image_archive("busybox")))
        assert done.returncode == 0 or "memory cgroup has" in done.stderr, done.stderr
    else:
        assert engine.cli("jaula", "logs", name).stdout == "line\n"


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(steps, marks=[] if steps == STEPS else pytest.mark.slow)
        for steps in itertools.permutations(STEPS)
    ],
)
def test_memory_pressure_ends_neither_the_engine_nor_a_container(
    cgroup: Path, worker_index: int, steps: tuple[str, ...]
) -> None:
    engine = LimitedEngine((worker_index + 83) % 250 + 1)
    engine.cgroup = cgroup
    with leaks.nothing_left(engine, own_network=True):
        load_image(engine, "busybox")
        assert engine.process is not None
        run = ("run", "-d", "--network", "none")
        program = ("busybox", "sh", "-c", "echo line; exec sleep 1000")
        started: list[str] = []
        refused: list[str] = []
        for number in range(MANY):
            name = f"c{number}"
            done = engine.cli("jaula", *run, "--name", name, *program)
            (started if done.returncode == 0 else refused).append(name)
            if done.returncode:
                assert "memory cgroup has" in done.stderr, done.stderr
            if len(refused) == 3:
                break
        assert len(started) >= 3
        assert refused
        for step in steps:
            _step(engine, step, started[-1])
        assert engine.process.poll() is None, engine.log_tail()
        running = engine.cli("jaula", "ps", "--format", "{{.Names}}").stdout.split()
        assert sorted(running) == sorted(started), engine.log_tail()
        assert engine.cli("jaula", "rm", "-f", *started, *refused).returncode == 0
        again = engine.cli("jaula", "run", "--rm", "--network", "none", "busybox", "echo", "again")
        assert again.stdout == "again\n", again.stderr
        assert engine.process.poll() is None, engine.log_tail()
