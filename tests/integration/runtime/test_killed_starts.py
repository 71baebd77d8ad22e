"""A process of a start is killed or stopped at each message: the start ends, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness import birth, deep_directory
from harness.birth import Point, Unreached
from harness.cgroup_driver import cgroup_driver
from harness.container_runner import ContainerRunner, make_spec
from jaula.errors import NotFound, RuntimeFailure, Unavailable
from jaula.runtime import runtime_client, shim_protocol, zygote
from jaula.runtime.init import init_sync
from jaula.runtime.runtime_client import Runtime, ShimLost
from jaula.runtime_interfaces import runtime_interfaces

LIMIT = 15.0  # seconds for a start to answer
ATTEMPTS = 5  # a machine under load may pass the short limits before a start reaches the message
PROGRAM = ("sleep", str(1_000_000 + os.getpid()))


class Start(NamedTuple):
    """A zygote whose starts wait at a point."""

    runner: ContainerRunner
    point: Point


@pytest.fixture(scope="module", params=["spare shim", pytest.param("fork", marks=pytest.mark.slow)])
def stopping(runner: ContainerRunner, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts with short limits, which wait at a point."""
    assert (
        init_sync.SYNC_TIMEOUT
        < shim_protocol.helper_timeout(None)
        < shim_protocol.start_timeout(None)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zygote, "_IDLE", 0.0 if request.param == "spare shim" else None)
        patch.setattr(init_sync, "SYNC_TIMEOUT", 1.0)
        patch.setattr(shim_protocol, "_HELPER_TIMEOUT", 2.0)
        patch.setattr(shim_protocol, "_REPORT_TIMEOUT", 4.0)
        point = birth.install(patch)
        runtime = Runtime.launch(runtime_interfaces)
        own = ContainerRunner(runner.base, runtime)
        yield Start(own, point)
        runtime.close()
    for path in runner.base.glob("c*/run/shim.sock"):
        path.unlink()  # of a shim that was killed


def clean_up(runner: ContainerRunner) -> None:
    """Remove the cgroups of all containers, as an engine does for a shim that was lost."""
    for name in names(runner):
        try:
            with cgroup_driver().open(f"{runner.cgroup_parent}/{name}") as cgroup:
                cgroup.kill()
                cgroup.destroy()
        except NotFound:
            continue


def names(runner: ContainerRunner) -> set[str]:
    """Return the cgroups of containers, in all hierarchies."""
    roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]
    parents = [root / runner.cgroup_parent.strip("/") for root in roots]
    return {child.name for p in parents if p.is_dir() for child in p.iterdir() if child.is_dir()}


def programs() -> list[str]:
    marks = b"\0".join(word.encode() for word in PROGRAM)
    pids = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if marks in (directory / "cmdline").read_bytes():
                pids.append(directory.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


def exists(pid: int) -> bool:
    """Return whether a process has not exited; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def send_signal(stopping: Start, victim: str, number: int, ended: threading.Event) -> None:
    """Send a signal to a process of the start that waits at the point, and release the start.

    :raises Unreached: when the start ends before it
    """
    stopping.point.wait(ended)
    try:
        if pid := birth.processes(stopping.runner.runtime.zygote_pid).get(victim):
            os.kill(pid, number)
    finally:
        stopping.point.release()


def run_until_reached(scene: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a scene again while its start ends before the message."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            asyncio.run(scene())
        except Unreached:
            if attempt == ATTEMPTS:
                raise
        else:
            return


def assert_nothing_is_left(stopping: Start, before: set[int]) -> None:
    deadline = time.monotonic() + 5
    while (strays := {pid for pid in stopping.point.forks() - before if exists(pid)}) or names(
        stopping.runner
    ):
        assert time.monotonic() < deadline, f"left: {strays}"
        time.sleep(0.01)
    assert not programs()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("victim", birth.VICTIMS)
@pytest.mark.parametrize(("message", "after"), birth.POINTS.values(), ids=birth.POINTS)
def test_a_start_ends_and_leaves_nothing(
    stopping: Start, message: bytes, after: bool, victim: str, number: signal.Signals
) -> None:
    runner, point = stopping
    before = point.forks()

    async def scene() -> None:
        point.arm(message, after=after)
        begin, ended = time.monotonic(), threading.Event()
        sender = asyncio.create_task(
            asyncio.to_thread(send_signal, stopping, victim, number, ended)
        )
        try:
            box = await runner.start(*PROGRAM, sandbox=False)
        except ShimLost:
            ended.set()
            clean_up(runner)
        except RuntimeFailure:  # the shim, or the helper, has removed everything
            ended.set()
        else:
            try:
                await sender
            except BaseException:
                await box.shim.kill()
                await box.ended
                raise
            if victim == "shim" and number == signal.SIGKILL:
                clean_up(runner)
            else:
                if victim == "shim":
                    os.kill(box.shim.shim_pid, signal.SIGCONT)
                with contextlib.suppress(RuntimeFailure, Unavailable):  # init may be the victim
                    await box.shim.signal(signal.SIGKILL)
                assert (await box.ended).exit_code == 137
        finally:
            await sender
        assert time.monotonic() - begin < LIMIT

    run_until_reached(scene)
    assert_nothing_is_left(stopping, before)


OF_STARTS = {"before the helper proceeds", "before the shim's answer", "after the shim's answer"}
EXEC_POINTS = {name: point for name, point in birth.POINTS.items() if name not in OF_STARTS}


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("victim", ["helper", "stage", "init"])
@pytest.mark.parametrize(("message", "after"), EXEC_POINTS.values(), ids=EXEC_POINTS)
def test_an_exec_ends_and_its_container_stays(
    stopping: Start, message: bytes, after: bool, victim: str, number: signal.Signals
) -> None:
    """The victim ``init`` is the process that executes the program."""
    runner, point = stopping
    before = point.forks()

    async def scene() -> None:
        try:
            box = await runner.start("sleep", "600", sandbox=False)
        except RuntimeFailure as error:  # slower than the short limits
            raise Unreached from error
        process_spec = make_spec(PROGRAM, cgroup="", first_id=runner.first_id).process
        assert process_spec is not None
        point.arm(message, after=after)
        begin, ended = time.monotonic(), threading.Event()
        sender = asyncio.create_task(
            asyncio.to_thread(send_signal, stopping, victim, number, ended)
        )
        try:
            await box.shim.exec("e1", process_spec, tty=False)
        except RuntimeFailure:
            ended.set()
            assert not programs()
        else:
            await asyncio.wait((sender,))
            with contextlib.suppress(RuntimeFailure):  # the process may be the victim
                await box.shim.signal(signal.SIGKILL, "e1")
        try:
            await sender
        except BaseException:
            await box.shim.signal(signal.SIGKILL)
            await box.ended
            raise
        assert time.monotonic() - begin < LIMIT
        await box.shim.exec("e2", process_spec, tty=False)
        await box.shim.signal(signal.SIGKILL)
        assert (await box.ended).exit_code == 137

    run_until_reached(scene)
    assert_nothing_is_left(stopping, before)


def test_holders_of_a_socket_are_killed_beside_a_file_without_a_name(tmp_path: Path) -> None:
    """Any process, also one of a container, can open a file whose path is longer than a page."""
    ours, theirs = socket.socketpair()
    with (
        ours,
        deep_directory.opened(tmp_path) as deep,
        subprocess.Popen(
            ("sleep", "60"), stdin=theirs, pass_fds=(deep,), start_new_session=True
        ) as holder,
    ):
        inode = os.fstat(theirs.fileno()).st_ino
        theirs.close()
        runtime_client.kill_holders(inode, zygote_pid=-1)
        assert holder.wait(LIMIT) == -signal.SIGKILL


def test_an_engine_that_has_given_up_does_not_get_a_container(
    stopping: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zygote is stopped; it forks the shim after the start has failed."""
    runner = stopping.runner
    monkeypatch.setattr(runtime_client, "_CLOSE_TIMEOUT", 0.2)
    monkeypatch.setattr(shim_protocol, "_HELPER_TIMEOUT", 0.1)
    monkeypatch.setattr(shim_protocol, "_REPORT_TIMEOUT", 0.1)
    os.kill(runner.runtime.zygote_pid, signal.SIGSTOP)
    try:
        with pytest.raises(ShimLost):
            asyncio.run(runner.start(*PROGRAM, sandbox=False))
    finally:
        os.kill(runner.runtime.zygote_pid, signal.SIGCONT)

    async def scene() -> None:
        box = await runner.start("true", sandbox=False)  # after the request before it
        assert (await box.ended).exit_code == 0

    monkeypatch.undo()
    asyncio.run(scene())
    assert not programs()
    assert not names(runner)
