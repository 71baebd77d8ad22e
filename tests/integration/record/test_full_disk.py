"""A record on a full file system: the command fails, and no part is taken for a whole record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.errors import Unavailable
from jaula.features.record import record_reader
from jaula.features.record.record_document import (
    VERSION,
    Container,
    End,
    Entry,
    Header,
    Kernel,
    Program,
)
from jaula.features.record.record_writer import RecordWriter
from jaula.kernel import mounts

from .test_record import SECONDS, recording

PAGE = 4096  # bytes that a tmpfs takes at once
HEADER = Header(
    version=VERSION,
    time="2026-01-01T00:00:00.000000Z",
    recorder="jaula 0",
    kernel=Kernel(release="6", version="#1", machine="x86_64", boot_id="b"),
    container=Container(id="c" * 64, name="web", image="busybox", image_id="sha256:0"),
    mechanism="ebpf-tracepoints",
    sources=("sys_exit",),
    cgroup="pids:/x",
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounts.mount("tmpfs", str(place), "tmpfs", 0, "size=256k")
    try:
        yield place
    finally:
        mounts.umount2(str(place), 2)


def fill(disk: Path, left: int = 0) -> None:
    """Take every byte but ``left`` pages."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        file.truncate(file.tell() - left * PAGE)


def written(path: Path, entries: int) -> RecordWriter:
    writer = RecordWriter(str(path))
    writer.append(HEADER)
    program = writer.append(Program(path="/bin/cat"))
    for number in range(entries):
        writer.append(Entry(kind="file", program=program, path=f"/{number:0100}", mode="read"))
    writer.append(End(reason="signal", duration=1, losses={}))
    return writer


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_a_part_of_a_record_is_none(disk: Path, tmp_path: Path, left: int) -> None:
    whole = written(tmp_path / "whole", 60)
    whole.flush()
    assert record_reader.read(str(tmp_path / "whole")).errors == []
    assert (tmp_path / "whole").stat().st_size > 3 * PAGE
    writer = written(disk / "record", 60)
    fill(disk, left)
    with pytest.raises(Unavailable, match="No space left") as raised:
        writer.flush()
    assert raised.value.hint == "the record has no end"
    writer.close()
    record = record_reader.read(str(disk / "record"))
    assert record.end is None
    assert any("no end" in text for text in record.errors)


def test_a_container_and_its_engine_outlive_a_record_without_space(
    engine: PrivateEngine, busybox: str, disk: Path
) -> None:
    path = disk / "record"
    with containers.running(engine, busybox) as name, recording(engine, name, path) as recorder:
        fill(disk)
        for number in range(20):
            engine.cli("jaula", "exec", name, "sh", "-c", f"echo {number} > /file-{number}")
        _, errors = recorder.process.communicate(timeout=SECONDS)
        assert recorder.process.returncode != 0
        assert f"cannot write {path}: No space left on device" in errors
        assert containers.inspect(engine, name)["State"]["Running"]
        assert engine.cli("jaula", "exec", name, "echo", "on").stdout == "on\n"
    if path.exists():
        assert any("no end" in text for text in record_reader.read(str(path)).errors)
        shown = engine.cli("jaula", "record", "verify", str(path))
        assert shown.returncode != 0
    assert os.listdir(disk) in (["filler"], ["filler", "record"], ["record", "filler"])
