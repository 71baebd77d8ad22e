"""A spare init: it becomes the init of a start of its shape, and its loss costs no start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from harness import birth
from harness.cgroup_driver import cgroup_driver
from harness.container_runner import Container, ContainerRunner
from jaula.errors import NotFound
from jaula.kernel.poll import readable
from jaula.runtime.runtime_client import Runtime
from jaula.runtime_interfaces import runtime_interfaces
from jaula.spec import runtime_spec

LIMIT = 60.0  # seconds; the end of a namespace takes time on a busy machine
VIEW = (
    "exec 2>&1; cut -d' ' -f4- /proc/self/mountinfo | sed 's/fd.[0-9]*//g' | sort;"
    " stat -c '%a %u %g %t %T %n' /dev/* /dev/pts/*; readlink /dev/fd /dev/ptmx;"
    " grep -E '^(Cap|Sig|Seccomp|NoNewPrivs|Groups|Umask|Speculation)' /proc/self/status;"
    " cat /proc/self/cgroup /proc/self/uid_map; id; hostname; pwd; env; ulimit -a;"
    " ls /proc/self/fd; ls /proc | grep -v '^[0-9]*$'; ls /sys /sys/fs/cgroup;"
    " cat /proc/self/oom_score_adj; for m in /proc/kcore /proc/keys /sys/firmware; do"
    " stat -f -c %T $m; done; echo x > /proc/sys/kernel/hostname; echo $?"
)
"""Commands that print what a program can see of its confinement."""


class Waiting:
    """The spare init of a test, with its parents."""

    def __init__(self, runner: ContainerRunner) -> None:
        self.runner = runner
        self.pid = self.helper = self.shim = 0

    async def __call__(self, cgroup: str) -> None:
        """Wait until the process waits in its cgroup."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            pids = processes_of(cgroup)
            if len(pids) == 1 and "staged" in mounts_of(pids[0]):
                (self.pid,) = pids
                self.helper = parent_of(self.pid)
                self.shim = parent_of(self.helper)
                return
            await asyncio.sleep(0.01)
        raise AssertionError("no spare init")


def mounts_of(pid: int) -> str:
    """Return "staged" if the process has mounted the last of its system directories."""
    try:
        text = Path(f"/proc/{pid}/mountinfo").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "staged" if "/sys/firmware" in text and len(birth.children(parent_of(pid))) == 1 else ""


def processes_of(cgroup: str) -> tuple[int, ...]:
    try:
        with cgroup_driver().open(cgroup) as opened:
            return opened.pids()
    except NotFound:
        return ()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def exited(pidfd: int) -> bool:
    return bool(readable(LIMIT, pidfd))


async def finish(box: Container) -> tuple[int, str]:
    """Return the exit code and the output of a container that ends by itself."""
    text = await box.output()
    return (await box.ended).exit_code, text


def test_a_start_has_the_process_that_waits(runner: ContainerRunner) -> None:
    async def scene() -> tuple[int, int, int]:
        waiting = Waiting(runner)
        box = await runner.start("sleep", "60", ahead=waiting)
        await box.shim.signal(signal.SIGKILL)
        await box.ended
        return waiting.pid, box.shim.pid, box.shim.shim_pid - waiting.shim

    pid, init, difference = asyncio.run(scene())
    assert pid == init
    assert difference == 0


@pytest.mark.parametrize("terminal", [False, True])
def test_a_program_sees_what_it_sees_without_a_spare_init(
    runner: ContainerRunner, terminal: bool
) -> None:
    async def view(ahead: Callable[[str], Awaitable[None]] | None) -> str:
        box = await runner.start("sh", "-c", VIEW, ahead=ahead, terminal=terminal)
        code, text = await finish(box)
        assert code == 0
        return text

    async def scene() -> tuple[str, str]:
        return await view(None), await view(Waiting(runner))

    expected, actual = asyncio.run(scene())
    assert actual.splitlines() == expected.splitlines()
    assert "/sys/firmware" in expected


def test_limits_and_mounts_of_the_start_count(runner: ContainerRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("volume\n")
    tmp_path.chmod(0o755)
    mounts = (
        runtime_spec.Mount("/data", str(tmp_path), "bind", ("rbind", "ro")),
        runtime_spec.Mount("/scratch", "tmpfs", "tmpfs", ("size=64k",)),
    )
    limits = runtime_spec.Resources(
        pids=runtime_spec.Pids(17), memory=runtime_spec.Memory(limit=64 << 20)
    )

    async def scene() -> tuple[int, str]:
        waiting = Waiting(runner)
        script = "cat /data/file; mount | grep -c ' /scratch '; cat /sys/fs/cgroup/pids/pids.max"
        script += " /sys/fs/cgroup/pids.max 2>/dev/null; true"
        box = await runner.start("sh", "-c", script, ahead=waiting, mounts=mounts, resources=limits)
        assert box.shim.pid == waiting.pid
        return await finish(box)

    assert asyncio.run(scene()) == (0, "volume\n1\n17\n")


@pytest.mark.parametrize(
    "other",
    [
        {"mounts": (runtime_spec.Mount("/dev/shm", "shm", "tmpfs", ("nosuid",)),)},
        {"mounts": (runtime_spec.Mount("/proc/extra", "tmpfs", "tmpfs"),), "expected": 125},
        {"namespaces": ("pid", "network", "ipc", "mount", "user", "cgroup")},
        {"args": ("sh", "-c", ": " + "x" * 40_000)},
    ],
    ids=["mount below dev", "mount below proc", "no uts namespace", "large"],
)
def test_a_start_of_another_shape_creates_its_own_init(
    runner: ContainerRunner, other: dict[str, object]
) -> None:
    options = dict(other)
    args = options.pop("args", ("true",))
    expected = options.pop("expected", 0)

    async def scene() -> tuple[int, int, int]:
        waiting = Waiting(runner)
        pidfd = -1

        async def ahead(cgroup: str) -> None:
            nonlocal pidfd
            await waiting(cgroup)
            pidfd = os.pidfd_open(waiting.pid)

        try:
            box = await runner.start(*args, ahead=ahead, **options)  # type: ignore[misc, arg-type]
        except Exception as error:  # noqa: BLE001 - the test compares its code
            code, pid = getattr(error, "exit_code", -1), 0
        else:
            code, pid = (await box.ended).exit_code, box.shim.pid
        assert exited(pidfd)
        os.close(pidfd)
        return code, pid, waiting.pid

    code, pid, waiting_pid = asyncio.run(scene())
    assert code == expected
    assert pid != waiting_pid


@pytest.mark.parametrize("victim", ["pid", "helper", "shim"])
def test_a_start_needs_no_spare_init(runner: ContainerRunner, victim: str) -> None:
    async def scene() -> tuple[int, str]:
        waiting = Waiting(runner)

        async def ahead(cgroup: str) -> None:
            await waiting(cgroup)
            pidfds = [os.pidfd_open(getattr(waiting, victim)), os.pidfd_open(waiting.pid)]
            os.kill(getattr(waiting, victim), signal.SIGKILL)
            for pidfd in pidfds:
                assert exited(pidfd)  # with its parents
                os.close(pidfd)

        return await finish(await runner.start("echo", "runs", ahead=ahead))

    assert asyncio.run(scene()) == (0, "runs\n")


def test_a_start_is_not_late_when_it_does_not_wait_for_the_process(
    runner: ContainerRunner,
) -> None:
    async def at_once(_cgroup: str) -> None:
        return

    async def scene() -> tuple[int, str]:
        return await finish(await runner.start("echo", "runs", ahead=at_once))

    assert asyncio.run(scene()) == (0, "runs\n")


@pytest.mark.parametrize("by", ["engine", "zygote"])
def test_nothing_is_left_of_one_that_is_given_up(runner: ContainerRunner, by: str) -> None:
    own = ContainerRunner(runner.base, Runtime.launch(runtime_interfaces))

    async def scene() -> None:
        waiting = Waiting(own)
        spec_ids = (runtime_spec.IDMapping(0, own.first_id, 65536),)
        sandbox = await own.runtime.sandbox(spec_ids)
        init = await own.spare_init("given-up", sandbox)
        cgroup = f"{own.cgroup_parent}/given-up"
        await waiting(cgroup)
        pidfds = [os.pidfd_open(pid) for pid in (waiting.pid, waiting.helper, waiting.shim)]
        if by == "engine":
            init.end()
        else:
            os.kill(own.runtime.zygote_pid, signal.SIGKILL)
        for pidfd in pidfds:  # the shim ends last
            assert exited(pidfd)
            os.close(pidfd)
        init.wait()
        sandbox.close()
        with pytest.raises(NotFound):
            cgroup_driver().open(cgroup)

    try:
        asyncio.run(scene())
    finally:
        own.runtime.close()


def test_a_process_that_waits_holds_nothing_but_its_own(runner: ContainerRunner) -> None:
    async def scene() -> tuple[set[str], set[str], dict[str, str], dict[str, str]]:
        other = await runner.start("sleep", "60")
        waiting = Waiting(runner)
        sockets: set[str] = set()
        others: set[str] = set()
        spaces: dict[str, str] = {}
        own: dict[str, str] = {}

        async def ahead(cgroup: str) -> None:
            await waiting(cgroup)
            sockets.update(sockets_of(waiting.pid))
            for pid in (runner.runtime.zygote_pid, other.shim.shim_pid, os.getpid()):
                others.update(sockets_of(pid))
            spaces.update(namespaces_of(waiting.pid))
            own.update(namespaces_of(os.getpid()))

        box = await runner.start("true", ahead=ahead)
        await box.ended
        await other.shim.signal(signal.SIGKILL)
        await other.ended
        return sockets, others, spaces, own

    sockets, others, spaces, own = asyncio.run(scene())
    assert sockets
    assert not sockets & others
    assert not {kind for kind in spaces if spaces[kind] == own[kind]} - {"time"}


def sockets_of(pid: int) -> set[str]:
    names = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing
            names.add(os.readlink(path))
    return {name for name in names if name.startswith("socket:")}


def namespaces_of(pid: int) -> dict[str, str]:
    kinds = ("user", "net", "pid", "mnt", "ipc", "uts", "cgroup", "time")
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds}
