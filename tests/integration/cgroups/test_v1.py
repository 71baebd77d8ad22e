"""Cgroup v1 only."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from jaula.cgroups.cgroup_driver import CgroupDriver
from jaula.cgroups.v1.driver_v1 import V1Driver


@pytest.fixture
def cpusets(driver: CgroupDriver) -> Path:
    if not isinstance(driver, V1Driver):
        pytest.skip("this host has cgroup v2")
    mounts = [Path(h.mount) for h in driver.hierarchies if "cpuset" in h.controllers]
    if not mounts:
        pytest.skip("this host has no cpusets")
    return mounts[0]


def test_a_concurrently_created_parent_is_filled(driver: CgroupDriver, cpusets: Path) -> None:
    """Two containers start at once; one creates their parent, the other needs it first.

    A new cpuset and those below it accept no process until it has processors and memory.
    """
    name = f"jlt{uuid.uuid4().hex[:10]}"
    parent = cpusets / name
    parent.mkdir()
    try:
        assert (parent / "cpuset.cpus").read_text().strip() == ""
        made = driver.create(f"/{name}/deep/child")
        try:
            for directory in (parent, parent / "deep", parent / "deep" / "child"):
                assert (directory / "cpuset.cpus").read_text().strip()
                assert (directory / "cpuset.mems").read_text().strip()
        finally:
            made.destroy()
            made.close()
    finally:
        driver.open(f"/{name}").destroy()
