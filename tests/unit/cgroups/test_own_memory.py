"""Containers are started while the engine's memory cgroup has room, on both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaula.cgroups.own_memory import RESERVE, SPARE, START, V1, V2, OwnMemory, Place
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
    return OwnMemory(Place(str(directory), "", V1 if version == 1 else V2))


@pytest.mark.parametrize("version", [1, 2])
def test_page_cache_counts_as_room(tmp_path: Path, version: int) -> None:
    cgroup(tmp_path, version, str(60 * MIB), 58 * MIB, START).check("it fails", START)


@pytest.mark.parametrize(("version", "limit"), [(1, "9223372036854771712"), (2, "max")])
def test_a_cgroup_without_a_limit_has_room(tmp_path: Path, version: int, limit: str) -> None:
    memory = cgroup(tmp_path, version, limit, 1 << 50)
    memory.check("it fails", START)
    assert memory.spare_shims() > 1000


@pytest.mark.parametrize("version", [1, 2])
def test_no_container_is_started_without_room(tmp_path: Path, version: int) -> None:
    memory = cgroup(tmp_path, version, str(60 * MIB), 60 * MIB - START + 1)
    with pytest.raises(Unavailable, match=r"it fails: .* has 8 of 60 MiB left"):
        memory.check("it fails", START)
    (tmp_path / NAMES[version][1]).write_text(str(60 * MIB - START))
    memory.check("it fails", START)


@pytest.mark.parametrize(("spares", "left"), [(2, 2 * SPARE), (1, SPARE), (0, 0), (-1, -1)])
@pytest.mark.parametrize("version", [1, 2])
def test_spare_shims_leave_a_reserve(tmp_path: Path, version: int, spares: int, left: int) -> None:
    memory = cgroup(tmp_path, version, str(60 * MIB), 60 * MIB - RESERVE - left)
    assert memory.spare_shims() == spares


@pytest.mark.parametrize("text", ["", "x", "-", "1 2"])
def test_a_file_that_cannot_be_read_stops_no_start(tmp_path: Path, text: str) -> None:
    OwnMemory(Place(str(tmp_path / "absent"), "", V2)).check("it fails", START)
    (tmp_path / "memory.max").write_text(text)
    OwnMemory(Place(str(tmp_path), "", V2)).check("it fails", START)
