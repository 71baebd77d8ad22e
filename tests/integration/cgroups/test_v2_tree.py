"""Cgroup v2 only: the no internal process constraint. Run by ``./test --vm``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from harness.cgroup_driver import cgroup_driver
from jaula.cgroups.cgroup_driver import Cgroup, CgroupDriver
from jaula.cgroups.v2.cgroup_v2 import V2Cgroup
from jaula.cgroups.v2.driver_v2 import LEAF, V2Driver
from jaula.errors import Conflict, Unsupported
from jaula.spec.runtime_spec import Network, Pids, Resources

pytestmark = pytest.mark.vm

Start = Callable[..., "subprocess.Popen[bytes]"]
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture(scope="session")
def driver() -> CgroupDriver:
    result = cgroup_driver()
    assert result.version == 2, "these tests need a machine with cgroup v2"
    return result


def started(start: Start, cgroup: Cgroup) -> subprocess.Popen[bytes]:
    process = start(cgroup, SLEEP)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_a_cgroup_with_processes_cannot_be_a_parent(
    driver: CgroupDriver, cgroup: Cgroup, path: str, start: Start
) -> None:
    process = started(start, cgroup)
    with pytest.raises(Conflict, match=rf"holds processes \({process.pid}\)"):
        driver.create(f"{path}/below")
    assert cgroup.pids() == (process.pid,)


def test_processes_at_the_delegated_root_move_to_a_leaf(cgroup: Cgroup, start: Start) -> None:
    process = started(start, cgroup)
    delegated = V2Driver(cgroup.locations()["pids"])
    with delegated.create("/parent/one") as inner:
        inner.apply(Resources(pids=Pids(limit=5)))
        assert inner.limits()["pids.max"] == "5"
    with delegated.open(f"/{LEAF}") as leaf:
        assert leaf.pids() == (process.pid,)


def test_a_raw_v2_file_can_be_set_by_name(cgroup: Cgroup) -> None:
    cgroup.apply(Resources(unified={"memory.high": "33554432"}))
    assert cgroup.limits()["memory.high"] == "33554432"
    with pytest.raises(Unsupported, match="no such limit"):
        cgroup.apply(Resources(unified={"memory.nonsense": "1"}))


def test_a_kernel_without_cgroup_kill_is_worked_around(
    driver: CgroupDriver, cgroup: Cgroup, path: str, start: Start
) -> None:
    """Killing one by one works on kernels with the file too."""
    process = started(start, cgroup)
    with driver.open(path) as again:
        assert isinstance(again, V2Cgroup)
        again.kill_one_by_one()
    assert process.wait(timeout=20) == -9


def test_network_class_and_priorities_are_refused_on_v2(cgroup: Cgroup) -> None:
    with pytest.raises(Unsupported, match="need cgroup v1"):
        cgroup.apply(Resources(network=Network(class_id=5)))
