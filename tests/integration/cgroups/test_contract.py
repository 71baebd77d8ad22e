"""The contract of :mod:`jaula.cgroups.cgroup_driver`, for the driver of the machine that runs this.

The same runs on v2 by ``./test --vm tests/integration/cgroups``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.cgroups.cgroup_driver import Cgroup, CgroupDriver
from jaula.cgroups.cgroup_stats import events_document
from jaula.cgroups.device_rules import with_default_devices
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.kernel.poll import readable
from jaula.spec.runtime_spec import CPU, DeviceCgroup, Memory, Pids, Rdma, Resources

MIB = 1 << 20
SLEEP = "import time; print('up', flush=True); time.sleep(60)"
DENY_ALL = DeviceCgroup(allow=False, access="rwm")
FORKER = """
import os, time
print('up', flush=True)
while True:
    if os.fork() == 0:
        time.sleep(0.02)
        os._exit(0)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        pass
    time.sleep(0.002)
"""

Start = Callable[..., "subprocess.Popen[bytes]"]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def up(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"


def test_a_new_cgroup_is_empty_and_can_be_opened_by_its_path(
    driver: CgroupDriver, cgroup: Cgroup, path: str
) -> None:
    assert cgroup.path == path
    assert cgroup.pids() == ()
    with driver.open(path) as again:
        assert again.locations() == cgroup.locations()
    for directory in cgroup.locations().values():
        assert os.path.isdir(directory)
        assert directory.endswith(path)


def test_opening_a_missing_cgroup_raises_not_found(driver: CgroupDriver, path: str) -> None:
    with pytest.raises(NotFound, match="no such cgroup"):
        driver.open(path)


@pytest.mark.parametrize("bad", ["", "/", "/a/../b", "/a//b", "/a\nb", "/./x", "/" + "x" * 300])
def test_a_bad_path_creates_nothing(driver: CgroupDriver, bad: str) -> None:
    with pytest.raises(InvalidRequest):
        driver.create(bad)


def test_processes_enter_themselves_or_are_moved_from_outside(cgroup: Cgroup, start: Start) -> None:
    inside = start(cgroup, SLEEP)
    up(inside)
    with subprocess.Popen(["sleep", "60"]) as outside:
        try:
            cgroup.add(outside.pid)
            assert cgroup.pids() == tuple(sorted((inside.pid, outside.pid)))
            member = Path(f"/proc/{outside.pid}/cgroup").read_text()
            assert member.count(cgroup.path) == len(set(cgroup.locations().values()))
        finally:
            outside.kill()


def test_clone_into_cgroup_starts_a_process_inside(driver: CgroupDriver, cgroup: Cgroup) -> None:
    directory = cgroup.directory_fd()
    assert (directory is None) == (driver.version == 1)
    if directory is not None:
        assert os.path.samestat(os.fstat(directory), os.stat(cgroup.locations()["memory"]))


def test_an_exited_process_cannot_be_added(cgroup: Cgroup) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(NotFound, match="no such process"):
        cgroup.add(process.pid)


def test_limits_reach_the_kernel(driver: CgroupDriver, cgroup: Cgroup) -> None:
    warnings = cgroup.apply(
        Resources(
            memory=Memory(limit=64 * MIB, swap=96 * MIB, reservation=32 * MIB),
            cpu=CPU(shares=1024, quota=50_000, period=100_000, cpus="0"),
            pids=Pids(limit=77),
        )
    )
    limits = cgroup.limits()
    assert warnings == ()
    assert limits["pids.max"] == "77"
    assert limits["cpuset.cpus"] == "0"
    if driver.version == 1:
        assert limits["memory.limit_in_bytes"] == str(64 * MIB)
        assert limits["memory.memsw.limit_in_bytes"] == str(96 * MIB)
        assert limits["memory.soft_limit_in_bytes"] == str(32 * MIB)
        assert (limits["cpu.shares"], limits["cpu.cfs_quota_us"]) == ("1024", "50000")
    else:
        assert limits["memory.max"] == str(64 * MIB)
        assert limits["memory.swap.max"] == str(32 * MIB)
        assert limits["memory.low"] == str(32 * MIB)
        assert (limits["cpu.weight"], limits["cpu.max"]) == ("100", "50000 100000")
    stats = cgroup.stats()
    assert (stats.memory.limit, stats.pids.limit) == (64 * MIB, 77)


def test_limits_can_be_raised_lowered_and_removed_in_any_order(cgroup: Cgroup) -> None:
    for limit, swap in ((64, 64), (128, 256), (32, 32), (512, 512), (16, 64), (-1, -1)):
        factor = MIB if limit > 0 else 1
        cgroup.apply(Resources(memory=Memory(limit=limit * factor, swap=swap * factor)))
        assert cgroup.stats().memory.limit == (limit * MIB if limit > 0 else None)
    for quota, period in ((50_000, 100_000), (900_000, 1_000_000), (1_000, 1_000), (-1, 100_000)):
        cgroup.apply(Resources(cpu=CPU(quota=quota, period=period)))
    cgroup.apply(Resources(cpu=CPU(quota=20_000)))
    values = " ".join(cgroup.limits().values())
    assert "20000" in values
    cgroup.apply(Resources(pids=Pids(limit=-1)))
    assert cgroup.stats().pids.limit is None


def test_memory_plus_swap_below_memory_changes_nothing(cgroup: Cgroup) -> None:
    before = cgroup.limits()
    with pytest.raises(InvalidRequest, match="less than the memory limit"):
        cgroup.apply(Resources(memory=Memory(limit=64 * MIB, swap=32 * MIB), pids=Pids(limit=5)))
    assert cgroup.limits() == before


@pytest.mark.parametrize(
    "resources",
    [
        Resources(cpu=CPU(cpus="4000")),
        Resources(cpu=CPU(cpus="zero")),
        Resources(cpu=CPU(quota=10, period=100_000)),
        Resources(cpu=CPU(period=1)),
        Resources(devices=(DeviceCgroup(allow=True, type="x"),)),
        Resources(devices=(DeviceCgroup(allow=True, access="rwz"),)),
        Resources(unified={"../../x": "1"}),
        Resources(unified={"cgroup.procs": "1"}),
    ],
)
def test_a_value_that_the_kernel_rejects_is_an_invalid_request(
    cgroup: Cgroup, resources: Resources
) -> None:
    with pytest.raises(JaulaError) as caught:
        cgroup.apply(resources)
    assert caught.value.status in (400, 409)
    assert not isinstance(caught.value.__cause__, UnicodeError)


def test_the_pids_limit_stops_forks(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(Resources(pids=Pids(limit=3)))
    program = """
import os, time
made = 0
try:
    for _ in range(10):
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except BlockingIOError:
    print('made', made, flush=True)
time.sleep(60)
"""
    process = start(cgroup, program)
    assert process.stdout is not None
    assert process.stdout.readline() == b"made 2\n"
    assert cgroup.stats().pids.current == 3
    assert cgroup.stats().pids.refused == 1
    assert len(cgroup.pids()) == 3


def test_the_usage_is_that_of_the_statistics(
    driver: CgroupDriver, cgroup: Cgroup, path: str, start: Start
) -> None:
    cgroup.apply(Resources(pids=Pids(limit=20)))
    process = start(cgroup, "print('up', flush=True)\nwhile True: pass")
    up(process)
    until(lambda: cgroup.stats().cpu.usage > 50_000_000)
    cgroup.freeze()
    stats, usage = cgroup.stats(), driver.usage(path)
    assert usage.pids == cgroup.pids() == (process.pid,)
    assert usage.stats.cpu.usage == pytest.approx(stats.cpu.usage, rel=0.05)
    assert usage.stats.cpu.user + usage.stats.cpu.system == pytest.approx(
        usage.stats.cpu.usage, rel=0.05
    )
    assert usage.stats.memory.usage == pytest.approx(stats.memory.usage, abs=MIB)
    assert usage.stats.memory.inactive_file == stats.memory.inactive_file
    assert usage.stats.memory.peak == stats.memory.peak
    assert usage.stats.pids == stats.pids
    assert usage.stats.pids.limit == 20
    assert usage.stats.blkio.devices == stats.blkio.devices
    cgroup.kill()


def test_the_usage_of_a_missing_cgroup_has_no_processes(driver: CgroupDriver, path: str) -> None:
    try:
        assert driver.usage(path).pids == ()
    except NotFound as error:
        assert "no such cgroup" in str(error)  # noqa: PT017 - both are the contract


def test_an_oom_kill_is_counted_and_notified(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(Resources(memory=Memory(limit=32 * MIB, swap=32 * MIB)))
    event = cgroup.oom_fd()
    assert event is not None
    try:
        process = start(cgroup, "x = bytearray(100 << 20)", settle=False)
        assert process.wait(timeout=60) == -9
        assert until(lambda: cgroup.oom_kills() == 1)
        assert readable(5, event)
        os.read(event, 4096)
    finally:
        os.close(event)
    assert cgroup.stats().oom_kills == 1
    assert 28 * MIB <= cgroup.peak_memory() <= 33 * MIB


def test_a_frozen_process_does_not_run_until_thawed(cgroup: Cgroup, start: Start) -> None:
    process = start(cgroup, "print('up', flush=True)\nwhile True: pass")
    up(process)
    assert not cgroup.frozen()
    cgroup.freeze()
    cgroup.freeze()
    assert cgroup.frozen()
    used = cgroup.stats().cpu.usage
    time.sleep(0.1)
    assert cgroup.stats().cpu.usage == used
    cgroup.thaw()
    cgroup.thaw()
    assert not cgroup.frozen()
    assert until(lambda: cgroup.stats().cpu.usage > used)


def test_kill_ends_a_fork_bomb(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(Resources(pids=Pids(limit=100)))
    process = start(cgroup, FORKER)
    up(process)
    assert until(lambda: len(cgroup.pids()) > 2)
    cgroup.kill()
    assert process.wait(timeout=20) == -9
    assert until(lambda: cgroup.pids() == ())


def test_kill_reaches_a_frozen_process(cgroup: Cgroup, start: Start) -> None:
    process = start(cgroup, SLEEP)
    up(process)
    cgroup.freeze()
    cgroup.kill()
    assert process.wait(timeout=20) == -9


def test_kill_without_processes_does_nothing(cgroup: Cgroup) -> None:
    cgroup.kill()
    cgroup.destroy()
    cgroup.kill()
    assert cgroup.pids() == ()
    assert (cgroup.oom_kills(), cgroup.peak_memory(), cgroup.frozen()) == (0, 0, False)
    assert cgroup.limits() == {}


def test_destroy_removes_children_and_is_idempotent(driver: CgroupDriver, path: str) -> None:
    cgroup = driver.create(path)
    directories = set(cgroup.locations().values())
    for directory in directories:
        os.makedirs(f"{directory}/a/b")
    cgroup.destroy()
    cgroup.destroy()
    assert not any(os.path.exists(directory) for directory in directories)


def test_processes_of_child_cgroups_are_listed_frozen_and_killed(
    driver: CgroupDriver, cgroup: Cgroup, path: str, start: Start
) -> None:
    """A container may create its own cgroups: systemd or a container engine in it."""
    process = start(cgroup, "print('up', flush=True)\nwhile True: pass")
    up(process)
    directories = set(cgroup.locations().values())
    for directory in directories:
        inner = Path(directory, "init.scope", "deeper")
        inner.mkdir(parents=True)
        for level in (inner.parent, inner):
            fill_cpuset(level)
        (inner / "cgroup.procs").write_text(str(process.pid))
    assert cgroup.pids() == driver.usage(path).pids == (process.pid,)
    cgroup.freeze()
    used = cgroup.stats().cpu.usage
    time.sleep(0.1)
    assert cgroup.stats().cpu.usage == used
    cgroup.kill()
    assert process.wait(timeout=20) == -9
    assert until(lambda: cgroup.pids() == ())
    cgroup.destroy()
    assert not any(os.path.exists(directory) for directory in directories)


def fill_cpuset(level: Path) -> None:
    """A v1 cpuset takes no process while its lists are empty."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (level / name).exists() and not (level / "cgroup.type").exists():
            (level / name).write_text((level.parent / name).read_text())


def test_a_partial_update_keeps_the_other_limits(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(
        Resources(
            memory=Memory(limit=64 * MIB, swap=64 * MIB),
            cpu=CPU(quota=20_000, period=50_000, shares=512),
            pids=Pids(limit=50),
        )
    )
    up(start(cgroup, SLEEP))
    before = cgroup.limits()
    cgroup.apply(Resources(pids=Pids(limit=60)))
    changed = {name for name, text in cgroup.limits().items() if before[name] != text}
    assert changed == {"pids.max"}
    cgroup.apply(Resources(memory=Memory(limit=48 * MIB)))
    assert cgroup.stats().memory.limit == 48 * MIB
    assert cgroup.stats().pids.limit == 60
    limits = cgroup.limits()
    assert (limits.get("cpu.cfs_quota_us") or limits["cpu.max"].split()[0]) == "20000"


def test_check_before_update_refuses_a_limit_below_the_usage(cgroup: Cgroup, start: Start) -> None:
    program = "x = bytearray(20 << 20)\nprint('up', flush=True)\nimport time; time.sleep(60)"
    up(start(cgroup, program))
    with pytest.raises(Conflict, match=r"unable to set memory limit to 4194304 \(current usage"):
        cgroup.apply(Resources(memory=Memory(limit=4 * MIB, check_before_update=True)))
    assert cgroup.stats().memory.limit is None


def test_a_privileged_container_may_use_every_device(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(Resources(devices=(DENY_ALL,)))
    cgroup.apply(Resources(devices=(DeviceCgroup(allow=True, access="rwm"),)))
    process = start(cgroup, "import os\nos.open('/dev/zero', os.O_RDWR)\nprint('up', flush=True)")
    assert process.communicate(timeout=60)[0] == b"up\n"


def test_default_devices_open_and_mknod_is_allowed(
    cgroup: Cgroup, start: Start, tmp_path: Path
) -> None:
    cgroup.apply(Resources(devices=with_default_devices((DENY_ALL,))))
    program = f"""
import os
os.chdir({str(tmp_path)!r})
for name in ('null', 'zero', 'full', 'random', 'urandom'):
    os.close(os.open('/dev/' + name, os.O_RDWR))
os.mknod('loop', 0o600 | 0o060000, os.makedev(7, 77))
os.mknod('tun', 0o600 | 0o020000, os.makedev(10, 200))
for name in ('loop', 'tun'):
    try:
        os.open(name, os.O_RDONLY)
    except PermissionError:
        print('refused', flush=True)
"""
    process = start(cgroup, program)
    assert process.communicate(timeout=60)[0] == b"refused\nrefused\n"


def test_detailed_statistics_have_the_form_of_other_runtimes(
    driver: CgroupDriver, cgroup: Cgroup, start: Start
) -> None:
    cgroup.apply(Resources(pids=Pids(limit=9)))
    process = start(cgroup, "x = bytearray(8 << 20)\nprint('up', flush=True)\nwhile True: pass")
    up(process)
    assert until(lambda: cgroup.stats().cpu.usage > 20_000_000)
    document = events_document(cgroup.stats(detailed=True))
    assert json.loads(json.dumps(document)) == document
    assert document["cpu"]["usage"]["total"] >= 20_000_000
    assert document["pids"] == {"current": 1, "limit": 9}
    assert document["memory"]["usage"]["usage"] > 8 * MIB
    assert document["memory"]["raw"]
    assert document["cpuset"]["cpus"]
    if driver.version == 1:
        # The total counts ticks of the clock, of which a part may have been another process's.
        assert sum(document["cpu"]["usage"]["percpu"]) >= 10_000_000
    else:
        assert document["memory"]["event_count"]["oom_kill"] == 0
        if os.path.exists("/proc/pressure/cpu"):
            assert document["cpu"]["psi"]["some"]["avg10"] >= 0.0


def test_shares_of_an_idle_cgroup_are_not_an_error(cgroup: Cgroup) -> None:
    cgroup.apply(Resources(cpu=CPU(idle=1)))
    assert cgroup.limits()["cpu.idle"] == "1"
    cgroup.apply(Resources(cpu=CPU(shares=512)))
    cgroup.apply(Resources(cpu=CPU(idle=0, shares=512)))
    assert cgroup.limits()["cpu.idle"] == "0"


def test_a_burst_follows_its_quota(cgroup: Cgroup) -> None:
    for quota, burst in ((50_000, 40_000), (20_000, 10_000), (90_000, 80_000)):
        cgroup.apply(Resources(cpu=CPU(quota=quota, period=100_000, burst=burst)))
        limits = cgroup.limits()
        assert (limits.get("cpu.cfs_burst_us") or limits.get("cpu.max.burst")) == str(burst)


def test_a_limit_of_a_missing_device_is_an_error(cgroup: Cgroup) -> None:
    with pytest.raises(JaulaError, match="rdma"):
        cgroup.apply(Resources(rdma={"none0": Rdma(hca_handles=2)}))


def test_destroy_names_the_remaining_processes(cgroup: Cgroup, start: Start) -> None:
    process = start(cgroup, SLEEP)
    up(process)
    with pytest.raises(Conflict, match=rf"in use by {process.pid}\b"):
        cgroup.destroy(timeout=0.05)
    assert cgroup.pids() == (process.pid,)


def test_create_refuses_a_used_cgroup_and_replaces_a_leftover(
    driver: CgroupDriver, cgroup: Cgroup, path: str, start: Start
) -> None:
    cgroup.apply(Resources(pids=Pids(limit=9)))
    process = start(cgroup, SLEEP)
    up(process)
    with pytest.raises(Conflict, match="in use by process"):
        driver.create(path)
    assert cgroup.pids() == (process.pid,)
    cgroup.kill()
    process.wait(timeout=20)
    assert until(lambda: cgroup.pids() == ())
    with driver.create(path) as again:
        assert again.stats().pids.limit != 9


def test_only_listed_devices_open(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(
        Resources(
            devices=(
                DENY_ALL,
                DeviceCgroup(allow=True, type="c", major=1, minor=3, access="rwm"),  # null
                DeviceCgroup(allow=True, type="c", major=1, minor=5, access="r"),  # zero
            )
        )
    )
    program = """
import os
def opens(path, flags):
    try:
        os.close(os.open(path, flags))
        return 'yes'
    except PermissionError:
        return 'no'
print(opens('/dev/null', os.O_RDWR), opens('/dev/zero', os.O_RDONLY),
      opens('/dev/zero', os.O_RDWR), opens('/dev/urandom', os.O_RDONLY))
"""
    process = start(cgroup, program, settle=False)
    assert process.communicate(timeout=60)[0] == b"yes yes no no\n"
    output = cgroup.limits()
    assert ("devices.list" in output) or re.fullmatch(
        r"program \d+ tag [0-9a-f]{16}", output["bpf.cgroup_device"]
    )


def test_later_device_rules_replace_earlier_ones(cgroup: Cgroup, start: Start) -> None:
    for minor in (5, 3):
        cgroup.apply(
            Resources(devices=(DENY_ALL, DeviceCgroup(allow=True, type="c", major=1, minor=minor)))
        )
    program = "import os\nos.open('/dev/null', os.O_RDWR)\nos.open('/dev/zero', os.O_RDWR)"
    process = start(cgroup, "import sys; sys.stderr = None\n" + program, settle=False)
    assert process.wait(timeout=60) == 1
    process = start(cgroup, program.rpartition("\n")[0])
    assert process.wait(timeout=60) == 0


def test_stats_count_time_and_memory(cgroup: Cgroup, start: Start) -> None:
    process = start(cgroup, "x = bytearray(20 << 20)\nprint('up', flush=True)\nwhile True: pass")
    up(process)
    stats = cgroup.stats()
    assert until(lambda: cgroup.stats().cpu.usage > stats.cpu.usage + 50_000_000)
    assert 20 * MIB <= stats.memory.usage < 60 * MIB
    assert stats.memory.peak >= stats.memory.usage - MIB
    assert stats.pids.current == 1
    assert stats.memory.details


def test_throttling_is_counted(cgroup: Cgroup, start: Start) -> None:
    cgroup.apply(Resources(cpu=CPU(quota=5_000, period=50_000)))
    start(cgroup, "while True: pass")
    assert until(lambda: cgroup.stats().cpu.throttled_periods > 2)
    assert until(lambda: cgroup.stats().cpu.throttled > 0)  # counted when a throttle ends


def test_no_descriptor_is_left_open(driver: CgroupDriver, path: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        cgroup = driver.create(path)
        cgroup.apply(Resources(pids=Pids(limit=9), devices=(DENY_ALL,)))
        cgroup.stats()
        cgroup.limits()
        with pytest.raises(InvalidRequest):
            cgroup.apply(Resources(cpu=CPU(cpus="zero")))
        cgroup.kill()
        cgroup.destroy()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_driver_lists_its_features(driver: CgroupDriver, cgroup: Cgroup) -> None:
    assert {"cpu", "memory", "pids", "devices", "freezer"} <= driver.controllers()
    assert {"memory", "cpu.quota", "pids", "freezer", "devices"} <= driver.features()
    assert all(line.startswith("WARNING: No ") for line in driver.warnings())


def test_a_new_parent_serves_many_children_and_stays(driver: CgroupDriver, parent: str) -> None:
    suffix = ".scope" if driver.name == "systemd" else ""
    made = [driver.create(f"{parent}/many-{number}{suffix}") for number in range(5)]
    for cgroup in made:
        cgroup.destroy()
    with driver.open(parent) as left:
        assert left.pids() == ()
