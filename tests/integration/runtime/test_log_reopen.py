"""The log of a pod's container, whose file another program renames while the container writes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from harness.container_runner import Container, ContainerRunner
from jaula.errors import RuntimeFailure, Unavailable
from jaula.logs.pod_log import PodLog
from jaula.logs.reader.read import read
from jaula.runtime.shim_protocol import LogSetup


def setup(log: PodLog) -> LogSetup:
    return LogSetup("cri", {"directory": log.directory, "path": log.path}, "")


async def until(path: Path, text: bytes) -> None:
    async with asyncio.timeout(20):
        while not (path.exists() and text in path.read_bytes()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def end(box: Container) -> None:
    await box.shim.signal(signal.SIGKILL)
    await box.ended


def test_every_line_is_whole_in_one_file(runner: ContainerRunner, tmp_path: Path) -> None:
    log = PodLog(str(tmp_path), "web/0.log")
    script = 'i=0; while [ $i -lt 20000 ]; do echo "line $i of many"; i=$((i+1)); done; printf end'

    async def scene() -> list[Path]:
        box = await runner.start("sh", "-c", script, log=setup(log))
        files = []
        reading = asyncio.create_task(box.output())
        while not box.ended.done() and len(files) < 20:
            rotated = Path(f"{log.name}.{len(files)}")
            os.rename(log.name, rotated)
            files.append(rotated)
            try:
                await box.shim.reopen_log()
            except (RuntimeFailure, Unavailable):
                break  # it has exited
            await asyncio.sleep(0.02)
        await box.ended
        await reading
        return [*files, Path(log.name)]

    files = asyncio.run(scene())
    assert len(files) > 2
    lines = []
    for path in files:
        text = path.read_bytes() if path.exists() else b""
        assert text.endswith(b"\n") or not text
        assert all(re.match(rb"\S+Z stdout [FP] ", line) for line in text.splitlines())
        lines += [line.split(b" ", 2)[2] for line in text.splitlines()]
    assert lines == [*(b"F line %d of many" % number for number in range(20_000)), b"P end"]


def test_a_file_that_cannot_be_opened_is_an_error_and_the_log_goes_on(
    runner: ContainerRunner, tmp_path: Path
) -> None:
    log = PodLog(str(tmp_path), "web/0.log")
    secret = tmp_path / "secret"
    secret.write_text("")

    async def scene() -> None:
        box = await runner.start("cat", stdin=True, log=setup(log))
        rotated = Path(f"{log.name}.1")
        box.client.send(b"one\n")
        await until(Path(log.name), b"one")
        os.rename(log.name, rotated)
        os.symlink(secret, log.name)
        with pytest.raises(RuntimeFailure, match=f"cannot open the log {log.name} again: "):
            await box.shim.reopen_log()
        box.client.send(b"two\n")
        await until(rotated, b"two")
        os.unlink(log.name)
        await box.shim.reopen_log()
        box.client.send(b"three\n")
        await until(Path(log.name), b"three")
        await end(box)

    asyncio.run(scene())
    assert secret.read_text() == ""
    assert [entry.log for entry in read(log)] == ["three\n"]


def test_the_log_of_another_driver_stays_as_it_is(runner: ContainerRunner, tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "log"
        box = await runner.start(
            "cat", stdin=True, log=LogSetup("json-file", {"mode": "blocking"}, str(path))
        )
        os.rename(path, tmp_path / "renamed")
        await box.shim.reopen_log()
        box.client.send(b"one\n")
        await until(tmp_path / "renamed", b"one")
        assert not path.exists()
        await end(box)

    asyncio.run(scene())


@pytest.mark.parametrize("kind", ["link", "fifo", "absent"])
def test_a_container_does_not_start_without_its_log(
    runner: ContainerRunner, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "0.log"
    if kind == "link":
        path.symlink_to("/etc/hostname")
    elif kind == "fifo":
        os.mkfifo(path)
    log = PodLog(str(tmp_path / "absent" if kind == "absent" else tmp_path), "0.log")

    async def scene() -> None:
        with pytest.raises(RuntimeFailure, match=re.escape(log.name)):
            await runner.start("true", log=setup(log))

    asyncio.run(scene())
