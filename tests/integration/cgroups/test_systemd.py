"""Cgroups of systemd: units with properties. Run by ``./test --vm``."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula import cgroups
from jaula.cgroups.cgroup_driver import Cgroup, CgroupDriver
from jaula.cgroups.cgroup_path import resolve
from jaula.cgroups.systemd.unit_annotations import PREFIX
from jaula.errors import Conflict, InvalidRequest
from jaula.spec.runtime_spec import (
    CPU,
    BlockIO,
    DeviceCgroup,
    HugepageLimit,
    Memory,
    Pids,
    Resources,
)

pytestmark = [pytest.mark.vm, pytest.mark.needs("/run/systemd/system")]

Start = Callable[..., "subprocess.Popen[bytes]"]
MIB = 1 << 20
SLEEP = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture
def driver() -> CgroupDriver:
    return cgroups.select(systemd=True, rootless=False)


@pytest.fixture
def path() -> str:
    name = uuid.uuid4().hex
    return resolve(f"jlt-sub.slice:jlt:{name}", name, systemd=True, rootless=False, own="")


@pytest.fixture
def cgroup(driver: CgroupDriver, path: str) -> Iterator[Cgroup]:
    made = driver.create(path)
    yield made
    made.kill()
    made.destroy()


def shown(unit: str, *names: str) -> dict[str, str]:
    arguments = [f"--property={name}" for name in names]
    done = subprocess.run(
        ["systemctl", "show", unit, *arguments], capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def children() -> set[str]:
    """Return the processes that this one has not waited for."""
    lists = Path("/proc/self/task").glob("*/children")
    return {pid for path in lists for pid in path.read_text().split()}


def started(start: Start, cgroup: Cgroup) -> subprocess.Popen[bytes]:
    process = start(cgroup, SLEEP)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_a_scope_is_in_its_slice_and_delegated(cgroup: Cgroup, start: Start) -> None:
    assert cgroup.path.startswith("/jlt.slice/jlt-sub.slice/jlt-")
    process = started(start, cgroup)
    unit = cgroup.path.rpartition("/")[2]
    result = shown(unit, "ActiveState", "Slice", "Delegate", "ControlGroup", "CollectMode")
    assert result == {
        "ActiveState": "active",
        "Slice": "jlt-sub.slice",
        "Delegate": "yes",
        "ControlGroup": cgroup.path,
        "CollectMode": "inactive-or-failed",
    }
    assert cgroup.pids() == (process.pid,)


def test_limits_survive_a_daemon_reload(cgroup: Cgroup, start: Start) -> None:
    started(start, cgroup)
    cgroup.apply(
        Resources(
            memory=Memory(limit=64 * MIB, swap=96 * MIB, reservation=32 * MIB),
            cpu=CPU(shares=2048, quota=25_000, period=50_000, cpus="0", mems="0"),
            pids=Pids(limit=77),
            block_io=BlockIO(weight=500),
            hugepage_limits=(HugepageLimit(page_size="2MB", limit=4 * MIB),),
            unified={"memory.high": str(48 * MIB)},
            devices=(
                DeviceCgroup(allow=False, access="rwm"),
                DeviceCgroup(allow=True, type="c", major=1, minor=3, access="rwm"),
            ),
        )
    )
    before = cgroup.limits()
    unit = cgroup.path.rpartition("/")[2]
    assert shown(unit, "MemoryMax", "TasksMax", "AllowedCPUs") == {
        "MemoryMax": str(64 * MIB),
        "TasksMax": "77",
        "AllowedCPUs": "0",
    }
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "set-property", "--runtime", unit, "TasksMax=78"], check=True)
    after = cgroup.limits()
    assert after.pop("pids.max") == "78"
    before.pop("pids.max")
    for limits in (before, after):
        limits.pop("bpf.cgroup_device")  # systemd's own program, of the same rules, joins ours
    assert after == before
    assert after["cpu.max"] == "25000 50000"
    denied = start(cgroup, "import os, sys; sys.stderr = None; os.open('/dev/zero', os.O_RDONLY)")
    assert denied.wait(timeout=60) == 1


def test_annotations_set_properties_of_the_unit(path: str) -> None:
    driver = cgroups.select(
        systemd=True,
        rootless=False,
        annotations={
            PREFIX + "TimeoutStopUSec": "uint64 5000000",
            PREFIX + "RuntimeMaxSec": "900",
            PREFIX + "Description": "'a box'",
        },
    )
    with driver.create(path) as made:
        unit = made.path.rpartition("/")[2]
        assert shown(unit, "TimeoutStopUSec", "RuntimeMaxUSec", "Description") == {
            "TimeoutStopUSec": "5s",
            "RuntimeMaxUSec": "15min",
            "Description": "a box",
        }
        made.destroy()


def test_an_unknown_property_creates_no_unit(path: str) -> None:
    annotations = {PREFIX + "NoSuchThing": "5"}
    driver = cgroups.select(systemd=True, rootless=False, annotations=annotations)
    before = children()
    with pytest.raises(InvalidRequest, match="NoSuchThing"):
        driver.create(path)
    assert shown(path.rpartition("/")[2], "ActiveState") == {"ActiveState": "inactive"}
    assert children() == before, "the process that was to hold the unit"


def test_a_unit_ends_with_its_last_process(
    driver: CgroupDriver, cgroup: Cgroup, path: str, start: Start
) -> None:
    process = started(start, cgroup)
    with pytest.raises(Conflict, match=f"in use by process {process.pid}"):
        driver.create(path)
    process.kill()
    process.wait()
    cgroup.destroy()
    cgroup.destroy()
    assert shown(path.rpartition("/")[2], "LoadState", "ActiveState")["ActiveState"] == "inactive"


def test_a_slice_can_replace_a_scope(driver: CgroupDriver) -> None:
    path = resolve("::jlt-own.slice", "x", systemd=True, rootless=False, own="")
    with driver.create(path) as made:
        assert made.path == "/jlt.slice/jlt-own.slice"
        assert os.path.isdir(next(iter(made.locations().values())))
        made.destroy()
