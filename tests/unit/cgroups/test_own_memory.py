"""Containers are started while the engine's memory cgroup has room, on both versions."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jaula.cgroups.own_memory import NEEDED, Headroom, OwnMemory
from jaula.errors import Unavailable

MIB = 1 << 20
NAMES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def cgroup(directory: Path, version: int, limit: str, used: int, cache: int = 0) -> OwnMemory:
    names = NAMES[version]
    (directory / names[0]).write_text(f"{limit}\n")
    (directory / names[1]).write_text(f"{used}\n")
    (directory / "memory.stat").write_text(f"anon 1\n{names[2]} {cache}\n")
    (directory / "cgroup.procs").write_text("")
    return OwnMemory(directory)


@pytest.mark.parametrize("version", [1, 2])
def test_page_cache_counts_as_room(tmp_path: Path, version: int) -> None:
    memory = cgroup(tmp_path, version, str(60 * MIB), 58 * MIB, 30 * MIB)
    assert memory.headroom() == Headroom(32 * MIB, 60 * MIB)
    memory.check("name")


@pytest.mark.parametrize(("version", "limit"), [(1, "9223372036854771712"), (2, "max")])
def test_a_cgroup_without_a_limit_has_room(tmp_path: Path, version: int, limit: str) -> None:
    memory = cgroup(tmp_path, version, limit, 1 << 50)
    assert memory.headroom() is None
    memory.check("name")


@pytest.mark.parametrize("version", [1, 2])
def test_no_container_is_started_without_room_and_the_log_says_so_once(
    tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    memory = cgroup(tmp_path, version, str(60 * MIB), 60 * MIB - NEEDED + 1)
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        with pytest.raises(Unavailable, match="cannot start container name"):
            memory.check("name")
    assert len(caplog.records) == 1
    (tmp_path / NAMES[version][1]).write_text("0")
    memory.check("name")
    (tmp_path / NAMES[version][1]).write_text(str(60 * MIB))
    with pytest.raises(Unavailable):
        memory.check("name")
    assert len(caplog.records) == 2


@pytest.mark.parametrize("text", ["", "x", "-", "1 2"])
def test_a_file_that_cannot_be_read_stops_no_start(tmp_path: Path, text: str) -> None:
    OwnMemory(tmp_path / "absent").check("name")
    (tmp_path / "memory.max").write_text(text)
    OwnMemory(tmp_path).check("name")
