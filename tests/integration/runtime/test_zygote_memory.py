"""When a zygote prepares its memory: after its first starts, or when there is no request."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import birth
from harness.container_runner import ContainerRunner
from jaula.runtime import immortal, memory_layout, zygote
from jaula.runtime.client import Runtime
from jaula.runtime.interfaces import Interfaces
from jaula.runtime.shim import warm_up
from jaula.runtime_interfaces import runtime_interfaces

LIMIT = 60.0  # seconds


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let each preparation create a file, and return its path.

    The parts whose time depends on the memory of the process are left out: a zygote of these tests
    is a fork of pytest.
    """
    file = tmp_path / "prepared"
    prepare = zygote._share_memory

    def share_memory(interfaces: Interfaces) -> None:
        prepare(interfaces)
        file.touch(exist_ok=False)

    monkeypatch.setattr(zygote, "_share_memory", share_memory)
    monkeypatch.setattr(memory_layout, "executed_code", lambda action: [])
    monkeypatch.setattr(memory_layout, "move_together", lambda executed: 0)
    monkeypatch.setattr(memory_layout, "complete_classes", lambda: None)
    monkeypatch.setattr(memory_layout, "fill_pools", list)
    monkeypatch.setattr(immortal, "make_all_immortal", lambda: None)
    monkeypatch.setattr(warm_up, "run", lambda interfaces: None)
    return file


def launched(runner: ContainerRunner) -> ContainerRunner:
    runtime = Runtime.launch(runtime_interfaces, lay_out_memory=True)
    return ContainerRunner(runner.base, runtime)


async def run_true(runner: ContainerRunner) -> None:
    box = await runner.start("true", sandbox=False)
    assert (await box.ended).exit_code == 0


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def states_of_children(pid: int) -> list[str]:
    return [
        Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        for child in birth.children(pid)
    ]


def test_the_first_starts_do_not_wait_for_it(
    runner: ContainerRunner, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote, "_SETTLED", 60.0)
    own = launched(runner)
    try:
        asyncio.run(run_true(own))
        assert not prepared.exists()
        asyncio.run(run_true(own))
        eventually(prepared.exists)
        asyncio.run(run_true(own))
    finally:
        own.runtime.close()


def test_a_zygote_without_requests_prepares_it_and_has_a_spare_shim(
    runner: ContainerRunner, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote, "_SETTLED", 0.05)
    own = launched(runner)
    try:
        eventually(prepared.exists)
        eventually(lambda: birth.children(own.runtime.zygote_pid))
        asyncio.run(run_true(own))
    finally:
        own.runtime.close()


def test_an_engine_that_ends_before_it_ends_the_zygote(
    runner: ContainerRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote, "_SETTLED", 60.0)
    own = launched(runner)
    pid = own.runtime.zygote_pid
    own.runtime.close()
    assert not Path(f"/proc/{pid}").exists()


def test_a_shim_that_exits_during_it_is_reaped(
    runner: ContainerRunner, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warm-up waits for processes of its own, so the kernel does not reap meanwhile."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"

    def wait(action: Callable[[], object]) -> list[object]:
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        begun.touch()
        eventually(ended.exists)
        signal.signal(signal.SIGCHLD, handler)
        return []

    monkeypatch.setattr(zygote, "_SETTLED", 0.05)
    monkeypatch.setattr(memory_layout, "executed_code", wait)
    own = launched(runner)

    async def scene() -> None:
        box = await own.start("sleep", "100", sandbox=False)
        await asyncio.to_thread(eventually, begun.exists)
        await box.shim.signal(signal.SIGKILL)
        await box.ended
        eventually(lambda: "Z" in states_of_children(own.runtime.zygote_pid))
        ended.touch()

    try:
        asyncio.run(scene())
        eventually(prepared.exists)
        assert "Z" not in states_of_children(own.runtime.zygote_pid)
    finally:
        own.runtime.close()
