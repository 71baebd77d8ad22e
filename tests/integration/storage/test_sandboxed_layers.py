"""The processes that read a layer: what they may do, what they say, and how they end.

A process that was taken over may say anything about the layer that it reads. The layer is refused
if that cannot be true, nothing is written outside the layer, and no file or process is left.
"""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import hostile_parser
from harness.containers import eventually
from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.sandbox.sandbox_limits import Limits as SandboxLimits
from jaula.sandbox.sandbox_worker import Worker, WorkerEnded
from jaula.storage import decompressor
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.tar import sandboxed
from jaula.storage.tar.tar_reader import Limits

Tar = Callable[..., bytes]
MIB = 1 << 20
WAIT = 60.0  # seconds


class Started(NamedTuple):
    """The processes that a test has started."""

    workers: list[Worker]

    def all_ended(self) -> bool:
        return all(not Path(f"/proc/{worker.pid}").exists() for worker in self.workers)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    found = Started([])
    create = Worker.__init__

    def record(self: Worker, *arguments: object, **options: object) -> None:
        create(self, *arguments, **options)  # type: ignore[arg-type]
        found.workers.append(self)

    monkeypatch.setattr(Worker, "__init__", record)
    return found


def _replace_parser(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    task = sandboxed.TASK._replace(function=f"harness.hostile_parser:{function}")
    monkeypatch.setattr(sandboxed, "TASK", task)


def _replace_decompressor(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    task = decompressor.TASK._replace(function=f"harness.hostile_parser:{function}")
    monkeypatch.setattr(decompressor, "TASK", task)


def _entries(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "root/layers").iterdir())


@pytest.mark.parametrize("lie", hostile_parser.LIES)
def test_what_cannot_be_true_is_refused(
    layers: LayerStore,
    tar: Tar,
    tmp_path: Path,
    canary: Path,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    lie: str,
) -> None:
    number = list(hostile_parser.LIES).index(lie)
    _replace_parser(monkeypatch, f"lie_{number}")
    data = tar(("f", "x" * 600), ("g", "y"))
    (tmp_path / "plain.tar").write_bytes(data)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((InvalidRequest, WorkerEnded)):
        layers.extract(io.BytesIO(data))
    with (
        (tmp_path / "plain.tar").open("rb") as file,
        pytest.raises((InvalidRequest, WorkerEnded)),
    ):
        layers.extract_plain(file, "sha256:" + "0" * 64)
    assert sorted(tmp_path.rglob("*")) == before
    assert started.all_ended()


def test_the_entry_that_the_lies_change_is_accepted(
    layers: LayerStore, tar: Tar, monkeypatch: pytest.MonkeyPatch
) -> None:
    _replace_parser(monkeypatch, "honest")
    info = layers.extract(io.BytesIO(tar(("f", "x" * 600), ("g", "y"))))
    assert (Path(layers.path(info.diff_id)) / "f").read_text() == "x"


@pytest.mark.parametrize("function", ["ask_for_ever", "answer_too_much", "die"])
def test_a_parser_that_misbehaves_ends_its_own_layer(
    layers: LayerStore,
    tar: Tar,
    tmp_path: Path,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
) -> None:
    _replace_parser(monkeypatch, function)
    diff_id = "sha256:" + "0" * 64
    with pytest.raises(WorkerEnded, match=f"reads layer {diff_id} has failed"):
        layers.extract(io.BytesIO(tar(("f", "x"))), diff_id)
    assert _entries(tmp_path) == []
    assert started.all_ended()


def test_a_parser_that_hangs_is_ended_in_time(
    layers: LayerStore,
    tar: Tar,
    tmp_path: Path,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandboxed, "LIMITS", SandboxLimits(processor=0, patience=1.0))
    _replace_parser(monkeypatch, "hang")
    with pytest.raises(InvalidRequest, match="takes more than 1 seconds"):
        layers.extract(io.BytesIO(tar(("f", "x"))))
    assert _entries(tmp_path) == []
    assert started.all_ended()


def test_the_parser_cannot_change_what_the_engine_has_hashed(
    layers: LayerStore, tar: Tar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _replace_parser(monkeypatch, "change")
    data = tar(("f", "x" * 3 * MIB), ("g", "y"))
    info = layers.extract(io.BytesIO(data))
    root = Path(layers.path(info.diff_id))
    assert (root / "f").read_bytes() == b"x" * 3 * MIB
    layers.remove(info.diff_id)
    (tmp_path / "plain.tar").write_bytes(data)
    with (tmp_path / "plain.tar").open("r+b") as file:  # as a blob that the engine has written
        assert layers.extract_plain(file, info.diff_id) == info
    assert (tmp_path / "plain.tar").read_bytes() == data


def test_other_bytes_of_a_decompressor_have_another_digest(
    layers: LayerStore,
    tar: Tar,
    tmp_path: Path,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tar(("f", "x"))
    trusted = layers.extract(io.BytesIO(data)).diff_id
    layers.remove(trusted)
    _replace_decompressor(monkeypatch, "decompress_other")
    with pytest.raises(InvalidRequest, match="has the digest"):
        layers.extract(io.BytesIO(gzip.compress(data)), trusted)
    with pytest.raises(InvalidRequest, match="has the digest"):
        layers.check_blob(io.BytesIO(gzip.compress(data)), trusted, "sha256:" + "1" * 64)
    assert _entries(tmp_path) == []
    assert started.all_ended()


def test_a_decompressor_without_end_meets_the_limit_of_the_archive(
    tmp_path: Path, tar: Tar, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jaula.config import Paths

    layers = LayerStore(Paths(tmp_path / "root", tmp_path / "run"), limits=Limits(bytes=8 * MIB))
    _replace_decompressor(monkeypatch, "decompress_without_end")
    with pytest.raises(InvalidRequest):
        layers.extract(io.BytesIO(gzip.compress(tar(("f", "x")))))
    assert _entries(tmp_path) == []
    assert started.all_ended()


def test_a_decompressor_that_hangs_is_ended_in_time(
    layers: LayerStore,
    tar: Tar,
    tmp_path: Path,
    started: Started,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decompressor, "LIMITS", SandboxLimits(processor=0, patience=1.0))
    _replace_decompressor(monkeypatch, "hang")
    with pytest.raises(InvalidRequest, match="takes more than 1 seconds"):
        layers.extract(io.BytesIO(gzip.compress(tar(("f", "x")))))
    assert _entries(tmp_path) == []
    assert started.all_ended()


def test_a_damaged_stream_has_the_error_of_the_decompressor(
    layers: LayerStore, tar: Tar, tmp_path: Path, started: Started
) -> None:
    data = bytearray(gzip.compress(tar(("f", os.urandom(MIB)))))
    data[MIB // 2 :] = bytes(len(data) - MIB // 2)
    with pytest.raises(InvalidRequest, match="the archive's compressed data is damaged"):
        layers.extract(io.BytesIO(bytes(data)))
    assert _entries(tmp_path) == []
    assert started.all_ended()


class Interrupted:
    """A source that calls a function before a read, counted from 0."""

    def __init__(self, data: bytes, at: int, action: Callable[[], object]) -> None:
        self._file = io.BytesIO(data)
        self._at = at
        self._action = action
        self._reads = 0

    def read(self, size: int, /) -> bytes:
        if self._reads == self._at:
            self._action()
        self._reads += 1
        return self._file.read(min(size, 1 << 16))


@pytest.mark.parametrize("which", [0, 1], ids=["parser", "decompressor"])
@pytest.mark.parametrize("at", [1, 10, 40])
def test_a_killed_process_ends_its_layer_with_one_error(
    layers: LayerStore, tar: Tar, tmp_path: Path, started: Started, which: int, at: int
) -> None:
    data = gzip.compress(tar(*((f"f{n}", os.urandom(MIB)) for n in range(5))))

    def kill() -> None:
        worker = started.workers[which]
        os.kill(worker.pid, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{worker.pid}").exists(), "the process has ended")

    source, diff_id = Interrupted(data, at, kill), "sha256:" + "0" * 64
    with pytest.raises(Unavailable, match=f"reads layer {diff_id} was killed"):
        layers.extract(source, diff_id)
    assert _entries(tmp_path) == []
    assert started.all_ended()


def test_a_source_that_fails_ends_the_processes(
    layers: LayerStore, tar: Tar, tmp_path: Path, started: Started
) -> None:
    def fail() -> None:
        raise JaulaError("the request has ended")

    data = gzip.compress(tar(("f", os.urandom(MIB))))
    with pytest.raises(JaulaError, match="the request has ended"):
        layers.extract(Interrupted(data, 5, fail), None)
    assert _entries(tmp_path) == []
    assert started.all_ended()


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {k: v.strip() for k, _, v in (line.partition(":") for line in file)}


def _held(pid: int) -> set[str]:
    """Return the kinds of the descriptors of a process."""
    names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return {name.split(":")[0] for name in names}


def test_both_processes_have_no_right_while_they_work(
    layers: LayerStore, tar: Tar, started: Started
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        arrived.set()
        assert go_on.wait(WAIT)

    data = gzip.compress(tar(*((f"f{n}", os.urandom(MIB)) for n in range(5))))
    thread = threading.Thread(target=lambda: layers.extract(Interrupted(data, 50, wait)))
    thread.start()
    try:
        assert arrived.wait(WAIT)
        pids = [worker.pid for worker in started.workers]
        statuses = [_status(pid) for pid in pids]
        held = [_held(pid) for pid in pids]
    finally:
        go_on.set()
        thread.join()
    assert [status["Name"] for status in statuses] == [sandboxed.TASK.name, decompressor.TASK.name]
    for status in statuses:
        assert status["Uid"].split() == ["65534"] * 4
        assert status["Gid"].split() == ["65534"] * 4
        assert status["Groups"] == ""
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 0, name
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
    assert held == [
        {"/dev/null", "socket", "/memfd"},
        {"/dev/null", "socket", "pipe"},
    ]
    assert started.all_ended()


_ENGINE = """
import sys
from jaula.sandbox.sandbox_worker import Worker
from jaula.storage.tar import sandboxed
from jaula.storage import decompressor
sandboxed.TASK = sandboxed.TASK._replace(function="harness.hostile_parser:hang")
unzip = decompressor.TASK._replace(function="harness.hostile_parser:hang")
with sandboxed.TarParser() as parser, Worker(unzip) as worker:
    parser._worker.begin(b"")
    worker.begin(b"")
    print(parser.pid, worker.pid, flush=True)
    sys.stdin.read()
"""


def test_the_processes_end_with_a_killed_engine() -> None:
    """Also processes that were taken over, which ignore the end of their channel."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    engine = subprocess.Popen(
        [sys.executable, "-c", _ENGINE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert engine.stdin is not None
    assert engine.stdout is not None
    with engine, engine.stdin:
        pidfds = [os.pidfd_open(int(word)) for word in engine.stdout.readline().split()]
        assert len(pidfds) == 2
        engine.kill()
    deadline = time.monotonic() + WAIT
    for pidfd in pidfds:
        try:
            while True:
                try:
                    signal.pidfd_send_signal(pidfd, 0)
                except ProcessLookupError:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            os.close(pidfd)
