"""Records of a container, as ``jaula harden NAME`` looks for them in the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.cli.cli_errors import CliError
from jaula.features.harden.cli import harden
from jaula.features.record.record_document import Container, End, Header, Kernel
from jaula.features.record.record_writer import RecordWriter


def write(path: Path, container: str) -> None:
    writer = RecordWriter(str(path))
    writer.append(
        Header(
            version=1,
            time="2026-01-01T00:00:00.000000Z",
            recorder="jaula 0",
            kernel=Kernel(release="6", version="#1", machine="x86_64", boot_id="b"),
            container=Container(id="c" * 64, name=container, image="busybox", image_id="sha256:0"),
            mechanism="ebpf-tracepoints",
            sources=("sys_exit",),
            cgroup="pids:/x",
        )
    )
    writer.append(End(reason="signal", duration=5, losses={}))
    writer.flush()
    writer.close()


def test_a_file_with_the_name_of_another_container_is_named_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "web.record", "olive_wolf")
    with pytest.raises(CliError, match=r"\(web\.record is of olive_wolf\)"):
        harden._records_of("web")


def test_only_records_of_the_container_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "web-1.record", "web")
    write(tmp_path / "web-2.record", "web-2")
    assert harden._records_of("web") == ["web-1.record"]
    with pytest.raises(CliError, match=r"\(db\.record, db-\*\.record\)"):
        harden._records_of("db")
