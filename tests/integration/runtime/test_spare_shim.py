"""The spare shim of an idle zygote: it becomes a shim, and its loss costs no start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import birth
from harness.container_runner import ContainerRunner
from jaula.kernel.poll import readable
from jaula.runtime.runtime_client import Runtime
from jaula.runtime_interfaces import runtime_interfaces

LIMIT = 10.0  # seconds


@pytest.fixture
def zygote(runner: ContainerRunner) -> Iterator[ContainerRunner]:
    """A zygote of the test's own, which has served a request."""
    runtime = Runtime.launch(runtime_interfaces)
    own = ContainerRunner(runner.base, runtime)
    asyncio.run(run_true(own))
    try:
        yield own
    finally:
        runtime.close()


async def run_true(runner: ContainerRunner) -> int:
    """Run a container to its end, and return the pid of its shim."""
    box = await runner.start("true", sandbox=False)
    pid = box.shim.shim_pid
    assert (await box.ended).exit_code == 0
    return pid


def spare_of(runner: ContainerRunner) -> tuple[int, int]:
    """Wait for the spare shim of an idle zygote; return its pid and that of its helper."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        for pid in birth.children(runner.runtime.zygote_pid):
            helpers = birth.children(pid)
            if comm(pid) == "jaula-zygote" and helpers:
                return pid, helpers[0]
        time.sleep(0.01)
    raise AssertionError("no spare shim")


def spares_of(runner: ContainerRunner, count: int) -> list[int]:
    """Wait for ``count`` spare shims of an idle zygote; return their pids, oldest first."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        pids = birth.children(runner.runtime.zygote_pid)
        if len(spares := [pid for pid in pids if comm(pid) == "jaula-zygote"]) == count:
            return spares
        time.sleep(0.01)
    raise AssertionError(f"not {count} spare shims")


def comm(pid: int) -> str:
    """Return the name of a process; '' if it has exited."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


def wait_until_exited(pidfd: int) -> None:
    assert readable(LIMIT, pidfd)
    os.close(pidfd)


def runner_with(runner: ContainerRunner, spare_shims: int) -> ContainerRunner:
    return ContainerRunner(runner.base, Runtime.launch(runtime_interfaces, spare_shims=spare_shims))


def test_a_zygote_has_as_many_spare_shims_as_are_set(runner: ContainerRunner) -> None:
    own = runner_with(runner, 3)
    try:
        asyncio.run(run_true(own))
        spares = spares_of(own, 3)

        async def scene() -> list[int]:
            boxes = [await own.start("sleep", "60", sandbox=False) for _ in range(4)]
            for box in boxes:
                await box.shim.signal(signal.SIGKILL)
                await box.ended
            return [box.shim.shim_pid for box in boxes]

        shims = asyncio.run(scene())
        assert len(set(shims)) == 4
        assert shims[0] == spares[0]
    finally:
        own.runtime.close()


def test_a_zygote_without_spare_shims_forks_for_each_start(runner: ContainerRunner) -> None:
    own = runner_with(runner, 0)
    try:
        asyncio.run(run_true(own))
        time.sleep(0.2)  # ten times as long as a zygote waits before it forks a spare shim
        assert not spares_of(own, 0)
        asyncio.run(run_true(own))
    finally:
        own.runtime.close()


def test_a_killed_spare_shim_does_not_take_the_place_of_the_next(runner: ContainerRunner) -> None:
    own = runner_with(runner, 2)
    try:
        asyncio.run(run_true(own))
        spares = spares_of(own, 2)
        pidfd = os.pidfd_open(spares[0])
        os.kill(spares[0], signal.SIGKILL)
        wait_until_exited(pidfd)
        assert asyncio.run(run_true(own)) == spares[1]
    finally:
        own.runtime.close()


def test_a_spare_shim_becomes_the_shim_of_the_next_container(zygote: ContainerRunner) -> None:
    pid, _ = spare_of(zygote)
    assert asyncio.run(run_true(zygote)) == pid


@pytest.mark.parametrize("number", [0, 1], ids=["shim", "helper"])
def test_a_start_needs_no_spare_shim(zygote: ContainerRunner, number: int) -> None:
    victim = spare_of(zygote)[number]
    pidfd = os.pidfd_open(victim)
    os.kill(victim, signal.SIGKILL)
    wait_until_exited(pidfd)
    assert asyncio.run(run_true(zygote))


def test_a_spare_shim_exits_with_its_zygote(zygote: ContainerRunner) -> None:
    pidfds = [os.pidfd_open(pid) for pid in spare_of(zygote)]
    os.kill(zygote.runtime.zygote_pid, signal.SIGKILL)
    for pidfd in pidfds:
        wait_until_exited(pidfd)


@pytest.mark.parametrize("stopped", ["", "shim", "helper"])
def test_the_helper_of_a_spare_shim_exits_with_it(zygote: ContainerRunner, stopped: str) -> None:
    """The zygote lives, and a process that is stopped does not keep the other one."""
    shim, helper = spare_of(zygote)
    pidfds = [os.pidfd_open(pid) for pid in (shim, helper)]
    if stopped:
        os.kill({"shim": shim, "helper": helper}[stopped], signal.SIGSTOP)
    os.kill(shim, signal.SIGKILL)
    for pidfd in pidfds:
        wait_until_exited(pidfd)
    assert asyncio.run(run_true(zygote)) != shim


def test_a_spare_shim_has_no_descriptor_of_its_zygote_or_of_another_container(
    zygote: ContainerRunner,
) -> None:
    async def scene() -> tuple[set[str], set[str]]:
        box = await zygote.start("sleep", "60", sandbox=False)
        targets = settled_descriptors(*spare_of(zygote))
        await box.shim.signal(signal.SIGKILL)
        await box.ended
        return targets

    zygote_targets = descriptors(zygote.runtime.zygote_pid)
    shim, helper = asyncio.run(scene())
    assert not shim & zygote_targets
    assert not helper & zygote_targets


def settled_descriptors(shim: int, helper: int) -> tuple[set[str], set[str]]:
    """Return the sockets of both once the shim has closed those that its fork gave it.

    What stays are two: to the zygote, to the helper.
    """
    deadline = time.monotonic() + 30
    while (len(found := descriptors(shim)), len(descriptors(helper))) != (2, 1):
        assert time.monotonic() < deadline, f"sockets of the shim: {found}"
        time.sleep(0.01)
    return found, descriptors(helper)


def descriptors(pid: int) -> set[str]:
    """Return the sockets of a process, without those that it closes meanwhile."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(path))
    return {name for name in found if name.startswith("socket:")}


def score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_the_kernel_kills_a_spare_shim_first_if_memory_runs_out(zygote: ContainerRunner) -> None:
    usual = score(os.getpid())
    spare, helper = spare_of(zygote)
    deadline = time.monotonic() + 30
    while (score(spare), score(helper)) != (1000, usual):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    async def start() -> tuple[int, int]:
        box = await zygote.start("sleep", "100", sandbox=False)
        scores = score(box.shim.shim_pid), score(box.shim.pid)
        assert box.shim.shim_pid == spare
        await box.shim.signal(signal.SIGKILL)
        await box.ended
        return scores

    assert asyncio.run(start()) == (usual, usual)


def test_spare_shims_are_given_up_when_there_is_no_room_for_them(
    runner: ContainerRunner, tmp_path: Path
) -> None:
    room = tmp_path / "room"
    room.write_text("1")
    runtime = Runtime.launch(
        runtime_interfaces, spare_shims=2, room_for_spares=lambda: int(room.read_text())
    )
    own = ContainerRunner(runner.base, runtime)
    try:
        assert asyncio.run(run_true(own))
        spares_of(own, 2)
        room.write_text("-1")
        assert asyncio.run(run_true(own))
        assert not spares_of(own, 0)
        assert asyncio.run(run_true(own))
        room.write_text("1")
        assert asyncio.run(run_true(own))
        spares_of(own, 2)
    finally:
        runtime.close()


def test_no_spare_shim_follows_one_that_was_killed(zygote: ContainerRunner) -> None:
    spare, _ = spare_of(zygote)
    pidfd = os.pidfd_open(spare)
    os.kill(spare, signal.SIGKILL)
    wait_until_exited(pidfd)
    for _ in range(2):
        assert asyncio.run(run_true(zygote)) != spare
    deadline = time.monotonic() + LIMIT
    while shims := [pid for pid in birth.children(zygote.runtime.zygote_pid) if comm(pid)]:
        assert time.monotonic() < deadline, shims
        time.sleep(0.01)
