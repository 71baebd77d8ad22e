"""Containers while systemd executes itself again, as in its upgrades. Run by ``./test --vm``."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import SliceEngine
from harness.private_runtime import RUNTIME, Bundle, PrivateRuntime

pytestmark = [pytest.mark.vm, pytest.mark.needs("/run/systemd/system")]

MIB = 1 << 20
TREE = Path("/sys/fs/cgroup")
SECONDS = 600.0  # for one call; emulated processors are slow
PAUSE = 0.5  # seconds at least between two executions of systemd
ANSWER = ("systemctl", "show", "--property=Version")  # ends when systemd has answered
ENGINE, RUNTIME_ONLY = 14, 6  # containers


@pytest.fixture
def node(worker_index: int) -> Iterator[SliceEngine]:
    flags = ("--exec-opt", "native.cgroupdriver=systemd")
    private = SliceEngine((worker_index + 97) % 250 + 1, extra_flags=flags)
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private
    subprocess.run(["systemctl", "stop", f"{private.tag}.slice"], check=True)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[PrivateRuntime]:
    made = PrivateRuntime(tmp_path / "oci")
    try:
        yield made
        assert made.left() == []
    finally:
        made.clear()
        shutil.rmtree(made.base, ignore_errors=True)


class Executions(threading.Thread):
    """systemd, which executes itself again and again, and answers at least half of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.ended = threading.Event()

    def run(self) -> None:
        pause = PAUSE
        while not self.ended.wait(pause):
            begin = time.monotonic()
            subprocess.run(["systemctl", "daemon-reexec"], check=False)
            while subprocess.run(ANSWER, stdout=subprocess.DEVNULL, check=False).returncode:
                time.sleep(PAUSE)
            pause = max(PAUSE, time.monotonic() - begin)
            self.count += 1


@contextlib.contextmanager
def executions() -> Iterator[Executions]:
    thread = Executions()
    thread.start()
    try:
        yield thread
    finally:
        thread.ended.set()
        thread.join()


def units(*patterns: str) -> list[str]:
    """Return the loaded units of these names."""
    done = subprocess.run(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", *patterns],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def container_of_engine(node: SliceEngine) -> None:
    """Create, start, change, stop, start, stop and remove a container."""
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Memory": 64 * MIB}}

    def ask(method: str, path: str, document: object = None) -> bytes:
        reply = node.request(method, path, document, timeout=SECONDS)
        assert reply.status < 300, f"{method} {path}: {reply.status} {reply.body!r}"
        return reply.body

    id = json.loads(ask("POST", "/containers/create", body))["Id"]
    ask("POST", f"/containers/{id}/start")
    ask("POST", f"/containers/{id}/update", {"Memory": 80 * MIB, "MemorySwap": 80 * MIB})
    ask("POST", f"/containers/{id}/stop?t=0")
    ask("POST", f"/containers/{id}/start")
    directory = TREE / f"{node.tag}.slice/jaula-{id}.scope"
    assert (directory / "memory.max").read_text() == f"{80 * MIB}\n"
    ask("DELETE", f"/containers/{id}?force=1")
    assert not directory.exists()


def scope_bundle(runtime: PrivateRuntime) -> Bundle:
    bundle = runtime.bundle({"linux": {"resources": {"memory": {"limit": 64 * MIB}}}})
    bundle.config["linux"]["cgroupsPath"] = f"system.slice:jlt:{bundle.id}"
    bundle.write()
    return bundle


def container_of_runtime(runtime: PrivateRuntime, bundle: Bundle) -> None:
    """Create, start, change and remove a container of ``jaula-runtime``."""
    first = [str(RUNTIME), "--root", str(runtime.root), "--systemd-cgroup"]
    with bundle.err.open("wb") as err:  # init keeps the descriptors of a created container
        done = subprocess.run(
            [*first, "create", "--bundle", str(bundle.path), bundle.id],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
            check=False,
            timeout=SECONDS,
        )
    assert done.returncode == 0, bundle.err.read_text()
    for words in (
        ("start", bundle.id),
        ("update", "--memory", str(32 * MIB), bundle.id),
        ("kill", bundle.id, "KILL"),
        ("delete", "--force", bundle.id),
    ):
        answer = runtime.command("--systemd-cgroup", *words, timeout=SECONDS)
        assert answer.returncode == 0, f"{words}: {answer.stderr}"


def test_no_container_fails_while_systemd_executes_itself_again(
    node: SliceEngine, runtime: PrivateRuntime
) -> None:
    bundles = [scope_bundle(runtime) for _ in range(RUNTIME_ONLY)]
    with executions() as executed, ThreadPoolExecutor(4) as pool:
        work = [pool.submit(container_of_runtime, runtime, each) for each in bundles]
        work += [pool.submit(container_of_engine, node) for _ in range(ENGINE)]
        failures = [str(error) for each in work if (error := each.exception()) is not None]
    assert failures == []
    assert executed.count > 5
    assert units(f"{node.tag}*.scope", "jaula-*.scope", f"jlt-{runtime.cgroup}*") == []
    assert [path for path in (TREE / f"{node.tag}.slice").glob("*") if path.is_dir()] == []
    assert list(TREE.glob(f"system.slice/jlt-{runtime.cgroup}*")) == []
