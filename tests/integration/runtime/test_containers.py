"""The runtime on the real kernel: properties of a running container."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from harness.container_runner import ContainerRunner
from jaula.errors import JaulaError, RuntimeFailure
from jaula.kernel.capabilities import read_status_masks
from jaula.runtime.runtime_client import Runtime
from jaula.runtime.shim_protocol import AttachStream, ExecExited, OutOfMemory
from jaula.spec import runtime_spec


def test_a_program_runs_as_pid_1_with_every_namespace_of_its_own(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sleep", "100")
        for kind in ("ipc", "mnt", "net", "pid", "user", "uts", "cgroup"):
            own = os.readlink(f"/proc/self/ns/{kind}")
            assert os.readlink(f"/proc/{box.shim.pid}/ns/{kind}") != own
        status = Path(f"/proc/{box.shim.pid}/status").read_text()
        assert "NSpid:\t" in status
        assert status.split("NSpid:\t")[1].split("\n")[0].split()[-1] == "1"
        assert f"Uid:\t{runner.first_id}\t" in status
        await box.shim.signal(signal.SIGKILL)
        record = await box.ended
        assert (record.exit_code, record.signal) == (137, 9)

    asyncio.run(scene())


def test_capability_sets_match_the_spec(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sleep", "100")
        masks = read_status_masks(box.shim.pid)
        expected = 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 13
        assert masks == {
            "inheritable": 0,
            "permitted": expected,
            "effective": expected,
            "bounding": expected,
            "ambient": 0,
        }
        await box.shim.signal(signal.SIGKILL)
        await box.ended

    asyncio.run(scene())


def test_only_three_descriptors_reach_the_program(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sleep", "100")
        assert sorted(os.listdir(f"/proc/{box.shim.pid}/fd")) == ["0", "1", "2"]
        await box.shim.signal(signal.SIGKILL)
        await box.ended

    asyncio.run(scene())


@pytest.mark.parametrize("sandbox", [True, False], ids=["prepared namespaces", "own namespaces"])
def test_output_and_exit_status(runner: ContainerRunner, sandbox: bool) -> None:
    async def scene() -> None:
        box = await runner.start("sh", "-c", "id -u; hostname; exit 7", sandbox=sandbox)
        assert await box.output() == "0\nbox\n"
        assert (await box.ended).exit_code == 7

    asyncio.run(scene())


def test_masks_and_read_only_paths_are_in_effect(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start(
            "sh",
            "-c",
            "wc -c < /proc/keys; ls /sys/firmware | wc -l;"
            "echo x > /proc/sys/kernel/domainname || echo refused",
        )
        lines = (await box.output()).split("\n")
        assert lines[:2] == ["0", "0"]
        assert "refused" in lines

    asyncio.run(scene())


def test_root_writes_to_a_bind_mount_as_its_owner_on_the_host(
    runner: ContainerRunner, tmp_path: Path
) -> None:
    async def scene() -> None:
        box = await runner.start(
            "sh",
            "-c",
            "echo hello > /data/file; stat -c %u /data/file",
            mounts=(
                runtime_spec.Mount("/data", str(tmp_path), None, ("rbind", "rprivate", "idmap")),
            ),
        )
        assert await box.output() == "0\n"
        await box.ended
        assert (tmp_path / "file").stat().st_uid == 0
        assert (tmp_path / "file").read_text() == "hello\n"

    asyncio.run(scene())


def test_writes_stay_in_the_upper_directory_with_plain_ids(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sh", "-c", "echo x > /new; rm /bin/vi; ls -ln /new")
        assert " 0 " in await box.output()
        await box.ended
        homes = list(runner.base.glob("c*/upper/new"))
        assert homes
        assert homes[-1].stat().st_uid == 0
        assert not (runner.layer / "new").exists()
        assert (runner.layer / "bin/vi").is_symlink()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (("nosuch",), 127, "executable file not found in $PATH"),
        (("/nosuch",), 127, "no such file or directory"),
        (("/etc",), 126, "permission denied"),
        (("/data/script",), 126, "permission denied"),
        (("/data/garbage",), 126, "exec format error"),
    ],
)
def test_a_program_that_cannot_start_gives_dockers_exit_code(
    runner: ContainerRunner, tmp_path: Path, args: tuple[str, ...], code: int, text: str
) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    (tmp_path / "garbage").write_text("garbage")
    (tmp_path / "garbage").chmod(0o755)

    async def scene() -> None:
        with pytest.raises(RuntimeFailure) as caught:
            await runner.start(
                *args, mounts=(runtime_spec.Mount("/data", str(tmp_path), None, ("bind", "idmap")),)
            )
        assert caught.value.exit_code == code
        assert text in str(caught.value)

    asyncio.run(scene())


def test_a_terminal_has_a_size_an_echo_and_a_console(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start(
            "sh",
            "-c",
            "tty; read go; stty size; test -c /dev/console && echo console",
            terminal=True,
            stdin=True,
        )
        await asyncio.sleep(0.2)
        await box.shim.resize("", 33, 77)
        box.client.sendall(b"go\n")
        text = await box.output()
        assert "/dev/pts/0\r\n" in text
        assert "33 77\r\n" in text
        assert text.endswith("console\r\n")

    asyncio.run(scene())


def test_half_closed_input_ends_the_program_and_output_arrives(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("wc", "-c", stdin=True)
        await asyncio.get_running_loop().sock_sendall(_nonblocking(box.client), b"x" * 300_000)
        box.client.shutdown(1)
        assert (await box.output()).strip() == "300000"

    asyncio.run(scene())


def _nonblocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


def test_exec_joins_every_namespace_and_reports_its_status(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sleep", "100")
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        await box.shim.exec(
            "e1",
            runtime_spec.Process(
                cwd="/tmp",
                args=(
                    "sh",
                    "-c",
                    "readlink /proc/self/ns/pid; pwd; ls /proc/self/fd | wc -l; exit 3",
                ),
                env=("PATH=/bin",),
                capabilities=runtime_spec.Capabilities(),
            ),
            tty=False,
            fd=theirs.detach(),
            stream=AttachStream(framed=False),
        )
        ours.setblocking(False)
        text = b""
        while data := await loop.sock_recv(ours, 4096):
            text += data
        lines = text.decode().split("\n")
        assert lines[0] == os.readlink(f"/proc/{box.shim.pid}/ns/pid")
        assert lines[1] == "/tmp"
        assert lines[2] == "4"  # the fourth is ls's own
        for _ in range(100):
            if box.events:
                break
            await asyncio.sleep(0.02)
        assert ExecExited("e1", 3) in box.events
        await box.shim.signal(signal.SIGKILL)
        await box.ended

    asyncio.run(scene())


def test_execs_that_would_fill_the_socket_are_executed_after_one_another(
    runner: ContainerRunner,
) -> None:
    """A signal is not behind them: it is sent at once."""
    count, words = 24, "x" * 50_000  # the socket has about 200 KB
    program = runtime_spec.Process(
        cwd="/",
        args=("true",),
        env=("PATH=/bin", f"X={words}"),
        capabilities=runtime_spec.Capabilities(),
    )

    async def scene() -> None:
        box = await runner.start("sleep", "100")
        execs = [
            asyncio.create_task(box.shim.exec(f"e{number}", program, tty=False))
            for number in range(count)
        ]
        await asyncio.sleep(0)
        pids = {await each for each in execs[: count // 2]}
        assert len(pids) == count // 2
        await box.shim.signal(signal.SIGKILL)
        assert (await box.ended).exit_code == 137
        for done in await asyncio.gather(*execs, return_exceptions=True):
            assert isinstance(done, int | JaulaError), done

    asyncio.run(scene())


def test_an_oom_kill_is_reported(runner: ContainerRunner) -> None:
    async def scene() -> None:
        limit = 16 << 20
        box = await runner.start(
            "dd",
            "if=/dev/zero",
            "of=/dev/null",
            "bs=100M",
            "count=1",
            resources=runtime_spec.Resources(memory=runtime_spec.Memory(limit=limit, swap=limit)),
        )
        record = await box.ended
        assert record.oom_killed
        assert record.exit_code == 137
        assert record.memory_limit == limit
        assert record.memory_peak > limit // 2
        assert any(isinstance(event, OutOfMemory) and event.limit == limit for event in box.events)

    asyncio.run(scene())


def test_a_later_engine_reconnects_and_reads_the_exit_record(runner: ContainerRunner) -> None:
    async def scene() -> None:
        box = await runner.start("sh", "-c", "read line; exit 4", stdin=True)
        run_dir = next(str(p.parent) for p in runner.base.glob("c*/run/shim.sock"))
        box.shim.close()
        events: list[object] = []
        again = await runner.runtime.reconnect(run_dir, events.append)
        assert again is not None
        assert again.pid == box.shim.pid
        again.close()
        box.client.sendall(b"go\n")
        for _ in range(100):
            record = Runtime.exit_record(run_dir)
            if record is not None:
                break
            await asyncio.sleep(0.02)
        assert record is not None
        assert record.exit_code == 4
        await asyncio.sleep(0.1)
        assert await runner.runtime.reconnect(run_dir, events.append) is None

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("cwd", "text"),
    [("/proc/self/fd/7", "below /proc"), ("/etc/passwd", "not a directory")],
)
def test_a_hostile_working_directory_is_refused(
    runner: ContainerRunner, cwd: str, text: str
) -> None:
    (runner.layer / "etc/passwd").touch()

    async def scene() -> None:
        with pytest.raises(RuntimeFailure, match=text):
            await runner.start("pwd", cwd=cwd)

    asyncio.run(scene())


def test_a_working_directory_behind_a_link_to_a_descriptor_is_refused(
    runner: ContainerRunner, tmp_path: Path
) -> None:
    async def scene() -> None:
        for fd in range(3, 30):
            link = tmp_path / f"w{fd}"
            link.symlink_to(f"/proc/self/fd/{fd}")
            with pytest.raises(RuntimeFailure, match="working directory"):
                await runner.start(
                    "pwd",
                    cwd=f"/data/w{fd}",
                    mounts=(runtime_spec.Mount("/data", str(tmp_path), None, ("bind", "idmap")),),
                )

    asyncio.run(scene())
