"""config-linux.md "Control groups": where the cgroup is, and each limit in the kernel's file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.cgroup_hierarchies import limiting, mounted_v1
from harness.disk import disk
from harness.private_runtime import Bundle, Config, PrivateRuntime

V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
MIB = 1 << 20


def directory(bundle: Bundle, controller: str) -> Path:
    """The directory of the container's cgroup, from the kernel's list of init's cgroups."""
    base = Path("/sys/fs/cgroup")
    for line in bundle.proc("cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not V2 and controller in controllers.split(","):
            return base / controller / path.lstrip("/")
        if V2 and not controllers:
            return base / path.lstrip("/")
    raise AssertionError(f"no {controller} in {bundle.proc('cgroup')}")


def value(bundle: Bundle, controller: str, v1: str, v2: str) -> str:
    return (directory(bundle, controller) / (v2 if V2 else v1)).read_text().strip()


# field, resources, controller, (v1 file, text), (v2 file, text)
TABLE: list[tuple[str, Config, str, tuple[str, str], tuple[str, str]]] = [
    (
        "memory.limit",
        {"memory": {"limit": 64 * MIB}},
        "memory",
        ("memory.limit_in_bytes", str(64 * MIB)),
        ("memory.max", str(64 * MIB)),
    ),
    (
        "memory.reservation",
        {"memory": {"reservation": 32 * MIB}},
        "memory",
        ("memory.soft_limit_in_bytes", str(32 * MIB)),
        ("memory.low", str(32 * MIB)),
    ),
    (
        "memory.swappiness",
        {"memory": {"swappiness": 7}},
        "memory",
        ("memory.swappiness", "7"),
        ("memory.max", "max"),
    ),
    (
        "cpu.shares",
        {"cpu": {"shares": 512}},
        "cpu",
        ("cpu.shares", "512"),
        ("cpu.weight", "59"),
    ),
    (
        "cpu.quota",
        {"cpu": {"quota": 50000, "period": 100000}},
        "cpu",
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.max", "50000 100000"),
    ),
    (
        "cpu.period",
        {"cpu": {"quota": 25000, "period": 50000}},
        "cpu",
        ("cpu.cfs_period_us", "50000"),
        ("cpu.max", "25000 50000"),
    ),
    (
        "cpu.burst",
        {"cpu": {"quota": 50000, "period": 100000, "burst": 10000}},
        "cpu",
        ("cpu.cfs_burst_us", "10000"),
        ("cpu.max.burst", "10000"),
    ),
    ("cpu.idle", {"cpu": {"idle": 1}}, "cpu", ("cpu.idle", "1"), ("cpu.idle", "1")),
    (
        "cpu.cpus",
        {"cpu": {"cpus": "1"}},
        "cpuset",
        ("cpuset.cpus", "1"),
        ("cpuset.cpus", "1"),
    ),
    (
        "cpu.mems",
        {"cpu": {"mems": "0"}},
        "cpuset",
        ("cpuset.mems", "0"),
        ("cpuset.mems", "0"),
    ),
    ("pids.limit", {"pids": {"limit": 77}}, "pids", ("pids.max", "77"), ("pids.max", "77")),
    (
        "pids.limit -1",
        {"pids": {"limit": -1}},
        "pids",
        ("pids.max", "max"),
        ("pids.max", "max"),
    ),
]


@pytest.mark.parametrize(
    ("resources", "controller", "v1", "v2"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_a_limit_is_in_the_kernel_s_file(
    runtime: PrivateRuntime,
    resources: Config,
    controller: str,
    v1: tuple[str, str],
    v2: tuple[str, str],
) -> None:
    with runtime.created({"linux": {"resources": resources}}) as bundle:
        name, text = v2 if V2 else v1
        assert (directory(bundle, controller) / name).read_text().strip() == text


def test_memory_and_swap_together(runtime: PrivateRuntime) -> None:
    memory = {"limit": 32 * MIB, "swap": 48 * MIB}
    bundle = runtime.bundle({"linux": {"resources": {"memory": memory}}})
    bundle.create()
    place = directory(bundle, "memory")
    for name, number in (("memory.memsw.limit_in_bytes", 48), ("memory.swap.max", 16)):
        if (place / name).exists():
            assert (place / name).read_text().strip() == str(number * MIB)
    assert bundle.delete("--force").returncode == 0


def test_the_oom_killer_can_be_disabled_on_v1(runtime: PrivateRuntime) -> None:
    memory = {"limit": 32 * MIB, "disableOOMKiller": True}
    bundle = runtime.bundle({"linux": {"resources": {"memory": memory}}})
    bundle.create()
    if not V2:
        assert "oom_kill_disable 1" in value(bundle, "memory", "memory.oom_control", "")
    else:
        assert " level=warning " in bundle.err.read_text()
    assert bundle.delete("--force").returncode == 0


@pytest.mark.parametrize(
    ("resources", "controller", "names", "texts"),
    [
        (
            {"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 950}},
            "cpu",
            ["cpu.rt_runtime_us"],
            {"950"},
        ),
        (
            {"blockIO": {"weight": 300}},
            "blkio" if not V2 else "io",
            ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight"],
            {"300", "2930"},  # io.weight goes from 1 to 10000
        ),
    ],
)
def test_an_unsupported_limit_gives_one_line(
    runtime: PrivateRuntime, resources: Config, controller: str, names: list[str], texts: set[str]
) -> None:
    bundle = runtime.bundle({"linux": {"resources": resources}})
    if bundle.make("create", "--pid-file", str(bundle.path / "pid")) == 0:
        bundle.pid = int((bundle.path / "pid").read_text())
        result = [directory(bundle, controller) / name for name in names]
        written = [texts & set(path.read_text().split()) for path in result if path.exists()]
        assert any(written) or " level=warning " in bundle.err.read_text()
        assert bundle.delete("--force").returncode == 0
    else:
        (line,) = bundle.err.read_text().splitlines()
        assert " level=error " in line
        assert not runtime.left()


def test_rdma_needs_its_controller(runtime: PrivateRuntime) -> None:
    resources = {"rdma": {"mlx5_1": {"hcaHandles": 3}}}
    text = runtime.bundle({"linux": {"resources": resources}}).refused()
    assert "rdma" in text
    assert not runtime.left()


@pytest.mark.parametrize(
    ("field", "v1", "v2"),
    [
        ("throttleReadBpsDevice", "read_bps_device", "rbps"),
        ("throttleWriteBpsDevice", "write_bps_device", "wbps"),
        ("throttleReadIOPSDevice", "read_iops_device", "riops"),
        ("throttleWriteIOPSDevice", "write_iops_device", "wiops"),
    ],
)
def test_block_devices_are_throttled(runtime: PrivateRuntime, field: str, v1: str, v2: str) -> None:
    _, major, minor = disk()
    block = {field: [{"major": major, "minor": minor, "rate": 12345}]}
    with runtime.created({"linux": {"resources": {"blockIO": block}}}) as bundle:
        if V2:
            assert f"{v2}=12345" in value(bundle, "io", "", "io.max")
        else:
            result = value(bundle, "blkio", f"blkio.throttle.{v1}", "")
            assert result == f"{major}:{minor} 12345"


def test_huge_pages_are_limited(runtime: PrivateRuntime) -> None:
    size = next(iter(sorted(os.listdir("/sys/kernel/mm/hugepages"))), "")
    if size != "hugepages-2048kB":
        pytest.skip("no huge pages of 2 MiB here")
    limits = [{"pageSize": "2MB", "limit": 4 * MIB}]
    bundle = runtime.bundle({"linux": {"resources": {"hugepageLimits": limits}}})
    hosts = [p for p in ("/sys/fs/cgroup/hugetlb", "/sys/fs/cgroup/unified") if os.path.isdir(p)]
    if bundle.make("create", "--pid-file", str(bundle.path / "pid")):
        assert "hugetlb" in bundle.err.read_text()
        return
    bundle.pid = int((bundle.path / "pid").read_text())
    names = ("hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max")
    result = [
        (place / name).read_text().strip()
        for host in hosts or ["/sys/fs/cgroup"]
        for place in Path(host).glob(f"**/{bundle.id}")
        for name in names
        if (place / name).exists()
    ]
    assert bundle.delete("--force").returncode == 0
    assert result == [str(4 * MIB)]


def test_network_class_and_priority(runtime: PrivateRuntime) -> None:
    network = {"classID": 0x100001, "priorities": [{"name": "lo", "priority": 5}]}
    bundle = runtime.bundle({"linux": {"resources": {"network": network}}})
    absent = [name for name in ("net_cls", "net_prio") if name not in mounted_v1()]
    if absent:
        assert ("cgroup v1" if V2 else absent[0]) in bundle.refused()
    else:
        bundle.create()
        assert value(bundle, "net_cls", "net_cls.classid", "") == str(0x100001)
        assert "lo 5" in value(bundle, "net_prio", "net_prio.ifpriomap", "").splitlines()
        assert bundle.delete("--force").returncode == 0


@pytest.mark.vm
def test_unified_files_are_written_as_they_are(runtime: PrivateRuntime) -> None:
    unified = {"memory.high": str(50 * MIB), "pids.max": "33", "cpu.weight": "42"}
    with runtime.created({"linux": {"resources": {"unified": unified}}}) as bundle:
        for name, text in unified.items():
            assert value(bundle, "", "", name) == text


def test_unified_files_need_the_unified_hierarchy(runtime: PrivateRuntime) -> None:
    if V2:
        pytest.skip("this host has it")
    bundle = runtime.bundle({"linux": {"resources": {"unified": {"memory.high": "max"}}}})
    assert "unified" in bundle.refused()


# where the cgroup is


def test_an_absolute_path_is_below_the_mount_point(runtime: PrivateRuntime) -> None:
    with runtime.created() as bundle:
        place = directory(bundle, "pids")
        base = Path("/sys/fs/cgroup") / ("" if V2 else "pids")
        assert place == base / runtime.cgroup / bundle.id
        assert str(bundle.pid) in (place / "cgroup.procs").read_text().split()
    assert not place.exists()


def test_relative_and_absent_paths_are_below_the_default_parent(runtime: PrivateRuntime) -> None:
    with runtime.created({"linux": {"cgroupsPath": f"{runtime.cgroup}/relative"}}) as bundle:
        assert str(directory(bundle, "pids")).endswith(f"/{runtime.cgroup}/relative")
    with runtime.created({"linux": {"cgroupsPath": None}}) as bundle:
        assert directory(bundle, "pids").name == bundle.id


def test_the_container_has_a_cgroup_in_every_limiting_hierarchy(
    runtime: PrivateRuntime,
) -> None:
    with runtime.started() as bundle:
        paths = {line.split(":", 2)[2] for line in limiting(bundle.proc("cgroup"))}
        assert f"/{runtime.cgroup}/{bundle.id}" in paths
        assert [path for path in paths if runtime.cgroup not in path] == []


def test_a_refused_limit_leaves_no_cgroup(runtime: PrivateRuntime) -> None:
    for resources in ({"cpu": {"cpus": "9999"}}, {"cpu": {"quota": 5, "period": 100000}}):
        runtime.bundle({"linux": {"resources": resources}}).refused()
        assert not runtime.left()


def test_memory_that_runs_out_ends_the_container(runtime: PrivateRuntime) -> None:
    resources = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    script = "exec dd if=/dev/zero of=/dev/null bs=64M count=1"
    done = runtime.bundle({"linux": {"resources": resources}}, script=script).run()
    assert done.returncode == 137


# update


def update(bundle: Bundle, *flags: str, stdin: str | None = None) -> None:
    done = bundle.command(
        "update", *flags, bundle.id, **({"input": stdin, "stdin": None} if stdin else {})
    )
    assert done.returncode == 0, done.stderr


def test_update_changes_limits_of_a_running_container(runtime: PrivateRuntime) -> None:
    with runtime.started({"linux": {"resources": {"pids": {"limit": 50}}}}) as bundle:
        update(bundle, "--memory", "32m", "--cpu-quota", "20000", "--cpu-period", "100000")
        memory = value(bundle, "memory", "memory.limit_in_bytes", "memory.max")
        assert memory == str(32 * MIB)
        quota = value(bundle, "cpu", "cpu.cfs_quota_us", "cpu.max")
        assert quota.split()[0] == "20000"
        assert value(bundle, "pids", "pids.max", "pids.max") == "50"
        update(bundle, "--pids-limit", "60", "--cpu-share", "256", "--cpuset-cpus", "0")
        assert value(bundle, "pids", "pids.max", "pids.max") == "60"
        assert value(bundle, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
        assert value(bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(32 * MIB)


@pytest.mark.parametrize("way", ["--resources=-", "file"])
def test_update_reads_a_document(runtime: PrivateRuntime, way: str, tmp_path: Path) -> None:
    text = json.dumps({"memory": {"limit": 48 * MIB}, "pids": {"limit": 9}})
    (tmp_path / "resources").write_text(text)
    with runtime.started() as bundle:
        if way == "file":
            update(bundle, "--resources", str(tmp_path / "resources"))
        else:
            update(bundle, way, stdin=text)
        memory = value(bundle, "memory", "memory.limit_in_bytes", "memory.max")
        assert memory == str(48 * MIB)
        assert value(bundle, "pids", "pids.max", "pids.max") == "9"


def test_an_invalid_update_is_refused_in_one_line(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        for flags in (["--memory", "much"], ["--cpuset-cpus", "999"], ["--resources", "/nope"]):
            done = bundle.command("update", *flags, bundle.id)
            assert done.returncode == 1, flags
            assert len(done.stderr.splitlines()) == 1, done.stderr
        bundle.command("kill", bundle.id, "KILL")
        bundle.ended()
        done = bundle.command("update", "--pids-limit", "5", bundle.id)
        assert done.returncode == 1
        assert "it is stopped" in done.stderr


def test_an_update_of_nothing_is_a_success(runtime: PrivateRuntime) -> None:
    """``docker update --restart`` makes one."""
    with runtime.started() as bundle:
        update(bundle)
        update(bundle, "--resources", "-", stdin="{}")


def freezer(name: str) -> tuple[Path, str, str, str]:
    """The directory of a cgroup, the file that freezes it, and the words that do and undo it."""
    legacy = Path("/sys/fs/cgroup/freezer")
    if legacy.is_dir():
        return legacy / name, "freezer.state", "FROZEN", "THAWED"
    return Path("/sys/fs/cgroup") / name, "cgroup.freeze", "1", "0"


@pytest.mark.parametrize(
    ("path", "text"),
    [("", "exists and is frozen"), ("/below", "is frozen: the container could not start")],
)
def test_a_frozen_cgroup_is_refused(runtime: PrivateRuntime, path: str, text: str) -> None:
    """A process in it would not run, and the creation would only time out."""
    name = f"{runtime.cgroup}-frozen"
    directory, file, freeze, thaw = freezer(name)
    directory.mkdir()
    try:
        (directory / file).write_text(freeze)
        refused = runtime.bundle({"linux": {"cgroupsPath": f"/{name}{path}"}}).refused()
        assert text in refused
        assert (directory / file).read_text().strip() == freeze
        assert not [entry for entry in directory.iterdir() if entry.is_dir()]
    finally:
        (directory / file).write_text(thaw)
        for left in Path("/sys/fs/cgroup").glob(f"*/{name}"):
            left.rmdir()
        if directory.exists():
            directory.rmdir()


def test_the_v2_tree_of_a_hybrid_host_is_entered_as_well(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        lines = [line.split(":", 2) for line in bundle.proc("cgroup").splitlines()]
        assert {path for _, _, path in lines} == {f"/{runtime.cgroup}/{bundle.id}"}, lines
