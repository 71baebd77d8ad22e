"""The helper that a shim forks for the next exec: it costs no descriptor, and its loss no exec."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from harness import birth
from harness.container_runner import Container, ContainerRunner
from jaula.errors import RuntimeFailure
from jaula.kernel.poll import readable
from jaula.runtime import shim_protocol
from jaula.runtime.runtime_client import Runtime
from jaula.runtime_interfaces import runtime_interfaces
from jaula.spec import runtime_spec

LIMIT = 15.0  # seconds


async def execute(box: Container, exec_id: str, *args: str) -> int:
    """Run a program in the container, and return its exit status."""
    await box.shim.exec(
        exec_id,
        runtime_spec.Process("/", args, ("PATH=/bin",), capabilities=runtime_spec.Capabilities()),
        tty=False,
    )
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        for event in box.events:
            if isinstance(event, shim_protocol.ExecExited) and event.exec_id == exec_id:
                return event.exit_code
        await asyncio.sleep(0.005)
    raise AssertionError(f"{exec_id} does not end")


def spares(box: Container) -> list[int]:
    """Return the helpers of a shim that wait."""
    found = []
    for pid in set(birth.children(box.shim.shim_pid)) - {box.shim.pid}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] == "S":
            found.append(pid)
    return found


async def spare_of(box: Container, number: int = 1) -> int:
    """Wait until a shim has this number of spare helpers; return the pid of the last, or 0."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        found = spares(box)
        if len(found) == number:
            return found[-1] if found else 0
        await asyncio.sleep(0.01)
    raise AssertionError(f"{found} instead of {number} spare helpers")


async def exited(pid: int) -> None:
    """Wait until a process has exited."""
    deadline = time.monotonic() + LIMIT
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, f"process {pid} has not exited"
        await asyncio.sleep(0.01)


async def end(box: Container) -> None:
    await box.shim.signal(signal.SIGKILL)
    await box.ended


def test_a_spare_helper_serves_the_next_exec_and_is_replaced(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sleep", "100")
        assert not spares(box), "only a container with execs has one"
        assert await execute(box, "e0", "true") == 0
        first = await spare_of(box)
        assert await execute(box, "e1", "sh", "-c", "exit 3") == 3
        with pytest.raises(RuntimeFailure, match="executable file not found"):
            await execute(box, "e2", "nosuch")
        second = await spare_of(box)
        assert second != first
        await end(box)
        await exited(second)

    asyncio.run(scene())


def test_it_has_no_stream_of_the_container_and_is_in_none_of_its_namespaces(
    runner: ContainerRunner,
) -> None:
    async def scene() -> None:
        box = await runner.start("cat", stdin=True)
        assert await execute(box, "e0", "true") == 0
        pid = await spare_of(box)
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert not [target for target in targets if target.startswith("pipe:")]
        assert len([target for target in targets if target.startswith("socket:")]) == 1
        for kind in ("mnt", "pid", "net", "user", "cgroup"):
            own, shims = (os.readlink(f"/proc/{each}/ns/{kind}") for each in (
                pid, box.shim.shim_pid))  # fmt: skip
            assert own == shims
        assert Path(f"/proc/{pid}/cgroup").read_text() != (
            Path(f"/proc/{box.shim.pid}/cgroup").read_text()
        )
        box.client.close()  # the program reads end of file, though the helper waits
        assert (await asyncio.wait_for(box.ended, LIMIT)).exit_code == 0

    asyncio.run(scene())


def test_it_ends_when_no_other_exec_follows(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sleep", "100")
        assert await execute(box, "e0", "true") == 0
        await spare_of(box)
        await spare_of(box, 0)
        assert await execute(box, "e1", "true") == 0
        await end(box)

    asyncio.run(scene())


def test_an_exec_needs_no_spare_helper(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sleep", "100")
        assert await execute(box, "e0", "true") == 0
        pidfd = os.pidfd_open(await spare_of(box))
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert readable(LIMIT, pidfd)
        os.close(pidfd)
        assert await execute(box, "e1", "true") == 0
        await end(box)

    asyncio.run(scene())


def test_orphans_of_a_container_in_the_hosts_pid_namespace_are_reaped(
    runner: ContainerRunner,
) -> None:
    """The shim is a subreaper while an exec begins only, and reaps what it gets meanwhile."""

    async def scene() -> None:
        box = await runner.start(
            "sleep", "100", namespaces=("mount", "network", "ipc", "uts"), sandbox=False
        )
        for number in range(20):
            assert await execute(box, f"e{number}", "sh", "-c", "(sleep 0.3 &); exit 0") == 0
        await spare_of(box)
        deadline = time.monotonic() + LIMIT
        while len(left := birth.children(box.shim.shim_pid)) > 2 and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await end(box)
        assert len(left) <= 2  # init and the spare helper

    asyncio.run(scene())


def test_without_spare_shims_there_is_none(runner: ContainerRunner) -> None:
    own = ContainerRunner(runner.base, Runtime.launch(runtime_interfaces, spare_shims=0))

    async def scene() -> None:
        box = await own.start("sleep", "100", sandbox=False)
        assert await execute(box, "e0", "true") == 0
        await asyncio.sleep(0.3)  # fifteen times as long as a shim waits before it forks one
        assert not spares(box)
        await end(box)

    try:
        asyncio.run(scene())
    finally:
        own.runtime.close()
