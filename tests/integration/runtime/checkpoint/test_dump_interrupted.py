"""CRIU is killed while it holds a container that it has dumped: the container runs on."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.cgroup_driver import cgroup_driver
from harness.checkpoints import CheckedContainer
from harness.engine import PrivateEngine
from jaula import runtime_interfaces
from jaula.errors import RuntimeFailure
from jaula.features.checkpoint.runtime import dump, expected
from jaula.kernel import nftables
from jaula.runtime import seqpacket
from jaula.runtime.shim_protocol import COMMIT, HELD, CheckpointRequest
from jaula.spec import runtime_spec

pytestmark = pytest.mark.criu


@pytest.fixture
def container(engine: PrivateEngine) -> Iterator[CheckedContainer]:
    kept = CheckedContainer(engine, (), ("connections", "threads"))
    kept.rounds(3)
    yield kept
    kept.remove()


@contextlib.contextmanager
def network(pid: int) -> Iterator[int]:
    netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield netns
    finally:
        os.close(netns)


def lock_tables(netns: int) -> tuple[str, ...]:
    """Return the names of CRIU's tables, which are deleted by that."""
    return nftables.delete_tables(netns, "CRIU-")


def state(pid: int) -> str:
    return containers.status(pid)["State"][:1]


class HeldDump:
    """A dump in a thread, which waits for the answer of the engine."""

    def __init__(
        self, engine: PrivateEngine, pid: int, images: Path, *, leave_running: bool = False
    ) -> None:
        images.mkdir(parents=True)
        (bundle,) = (
            path for path in (engine.root / "lib").rglob("config.json") if _is_of(path, pid)
        )
        self._spec = runtime_spec.decode(bundle.read_bytes())
        self._request = CheckpointRequest(
            0, str(images), leave_running=leave_running, tcp_established=True
        )
        assert self._spec.linux is not None
        self._cgroup = self._spec.linux.cgroups_path
        self._pid = pid
        self.engine_end, self._shim_end = seqpacket.pair()
        self.failures: list[RuntimeFailure] = []
        self._before = set(_criu_processes())
        self._thread = threading.Thread(target=self._dump)
        self._thread.start()
        assert seqpacket.receive(self.engine_end)[0].startswith(HELD)

    def _dump(self) -> None:
        state = runtime_spec.State("", "running", "", self._pid, self._spec.annotations)
        confinement = expected.of_container(
            self._spec, state, runtime_interfaces.runtime_interfaces(), seccomp_cache=None
        )
        try:
            with cgroup_driver().open(self._cgroup) as cgroup:
                fd = os.dup(self._shim_end.fileno())
                dump.dump(self._spec, confinement, self._request, self._pid, cgroup, fd)
        except RuntimeFailure as error:
            self.failures.append(error)

    def kill_criu(self) -> None:
        os.kill(self._criu(), signal.SIGKILL)

    def stop_criu(self) -> None:
        os.kill(self._criu(), signal.SIGSTOP)

    def _criu(self) -> int:
        (criu,) = set(_criu_processes()) - self._before
        return criu

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.engine_end.close()
        self._shim_end.close()

    def end(self) -> RuntimeFailure:
        self.join()
        (failure,) = self.failures
        return failure


def _is_of(config: Path, pid: int) -> bool:
    return config.parent.name in Path(f"/proc/{pid}/cgroup").read_text()


def _criu_processes() -> list[int]:
    return containers.children(os.getpid(), "criu")


def test_packets_pass_again_after_criu_was_killed(
    engine: PrivateEngine, container: CheckedContainer, tmp_path: Path
) -> None:
    pid = containers.pid(engine, container.name)
    held = HeldDump(engine, pid, tmp_path / "dump/images")
    held.kill_criu()
    assert "criu was killed" in str(held.end())
    with network(pid) as netns:
        assert lock_tables(netns) == ()
    container.advance()


def test_packets_pass_again_if_the_engine_ends_without_an_answer(
    engine: PrivateEngine, container: CheckedContainer, tmp_path: Path
) -> None:
    pid = containers.pid(engine, container.name)
    held = HeldDump(engine, pid, tmp_path / "dump/images")
    held.engine_end.shutdown(2)
    assert "the engine has ended" in str(held.end())
    with network(pid) as netns:
        assert lock_tables(netns) == ()
    container.advance()


def test_a_killed_criu_leaves_its_table(
    engine: PrivateEngine,
    container: CheckedContainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the deletion the tests above fail."""
    monkeypatch.setattr(dump.network, "unlock", lambda *_: None)
    pid = containers.pid(engine, container.name)
    with network(pid) as netns:
        held = HeldDump(engine, pid, tmp_path / "dump/images")
        held.kill_criu()
        held.end()
        assert len(lock_tables(netns)) == 1


@pytest.mark.parametrize("leave_running", [False, True])
def test_a_criu_that_is_killed_after_the_answer(
    engine: PrivateEngine, container: CheckedContainer, tmp_path: Path, leave_running: bool
) -> None:
    """A container that ends has ended; one that is left running runs on."""
    pid = containers.pid(engine, container.name)
    held = HeldDump(engine, pid, tmp_path / "dump/images", leave_running=leave_running)
    held.stop_criu()
    seqpacket.send(held.engine_end, COMMIT)
    if not leave_running:
        containers.eventually(lambda: state(pid) == "Z", "the end of the container")
    held.kill_criu()
    held.join()
    assert bool(held.failures) == leave_running
    if leave_running:
        with network(pid) as netns:
            assert lock_tables(netns) == ()
        container.advance()
