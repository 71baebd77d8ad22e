"""A zygote lays out its memory after its first starts, or when there is no request."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import birth, containers
from harness.container_runner import ContainerRunner
from jaula.runtime import immortal, memory_layout, zygote
from jaula.runtime.interfaces import Interfaces
from jaula.runtime.runtime_client import Runtime
from jaula.runtime.shim import warm_up
from jaula.runtime_interfaces import runtime_interfaces

LIMIT = 60.0  # seconds


@pytest.fixture
def laid_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a zygote create a file when it has laid out its memory, and return its path.

    The parts whose time depends on the memory of the process are left out: a zygote of these tests
    is a fork of pytest.
    """
    file = tmp_path / "laid-out"
    lay_out_memory = zygote._lay_out_memory

    def lay_out(interfaces: Interfaces) -> None:
        lay_out_memory(interfaces)
        file.touch(exist_ok=False)

    monkeypatch.setattr(zygote, "_lay_out_memory", lay_out)
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


def eventually(condition: Callable[[], bool], what: str) -> None:
    containers.eventually(condition, what, LIMIT)


def has_zombie(zygote_pid: int) -> bool:
    children = birth.children(zygote_pid)
    return any(containers.status(child)["State"].startswith("Z") for child in children)


def test_the_first_starts_do_not_wait_for_it(
    runner: ContainerRunner, laid_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote, "_IDLE_BEFORE_LAYOUT", 60.0)
    own = launched(runner)
    try:
        asyncio.run(run_true(own))
        assert not laid_out.exists()
        asyncio.run(run_true(own))
        eventually(laid_out.exists, "the memory is laid out")
        asyncio.run(run_true(own))
    finally:
        own.runtime.close()


def test_a_zygote_without_requests_lays_it_out_and_has_a_spare_shim(
    runner: ContainerRunner, laid_out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote, "_IDLE_BEFORE_LAYOUT", 0.05)
    own = launched(runner)
    try:
        eventually(laid_out.exists, "the memory is laid out")
        eventually(lambda: bool(birth.children(own.runtime.zygote_pid)), "it has a spare shim")
        asyncio.run(run_true(own))
    finally:
        own.runtime.close()


def test_an_engine_that_ends_before_it_ends_the_zygote(
    runner: ContainerRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote, "_IDLE_BEFORE_LAYOUT", 60.0)
    own = launched(runner)
    pid = own.runtime.zygote_pid
    own.runtime.close()
    assert not Path(f"/proc/{pid}").exists()


def test_a_shim_that_exits_during_it_is_reaped(
    runner: ContainerRunner, laid_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warm-up waits for processes of its own, so the kernel does not reap meanwhile."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"

    def wait(action: Callable[[], object]) -> list[object]:
        handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        begun.touch()
        eventually(ended.exists, "the container has ended")
        signal.signal(signal.SIGCHLD, handler)
        return []

    monkeypatch.setattr(zygote, "_IDLE_BEFORE_LAYOUT", 0.05)
    monkeypatch.setattr(memory_layout, "executed_code", wait)
    own = launched(runner)

    async def scene() -> None:
        box = await own.start("sleep", "100", sandbox=False)
        await asyncio.to_thread(eventually, begun.exists, "the warm-up has begun")
        await box.shim.signal(signal.SIGKILL)
        await box.ended
        eventually(lambda: has_zombie(own.runtime.zygote_pid), "the shim has exited")
        ended.touch()

    try:
        asyncio.run(scene())
        eventually(laid_out.exists, "the memory is laid out")
        assert not has_zombie(own.runtime.zygote_pid)
    finally:
        own.runtime.close()
