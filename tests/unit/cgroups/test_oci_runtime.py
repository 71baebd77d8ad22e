"""Cgroups of an OCI runtime: default devices, the null driver, the events document."""

from __future__ import annotations

import pytest

from jaula.cgroups import device_rules, hugetlb_page_size, null_driver
from jaula.cgroups.cgroup_driver import (
    BlkioStats,
    CpuStats,
    HugetlbStats,
    IoEntry,
    MemoryCounter,
    MemoryStats,
    PidsStats,
    Pressure,
    PressureLine,
    Stats,
)
from jaula.cgroups.cgroup_files import FileWrite
from jaula.cgroups.cgroup_stats import events_document
from jaula.cgroups.device_rules import DEFAULT_DEVICES, with_default_devices
from jaula.cgroups.rdma import Rdma as RdmaController
from jaula.cgroups.v1 import blkio, cpu_v1
from jaula.cgroups.v1.hugetlb_v1 import Hugetlb
from jaula.cgroups.v1.net_cls_v1 import NetCls, NetPrio
from jaula.cgroups.v2 import pressure, unified
from jaula.errors import InvalidRequest, NotAuthorized, Unsupported
from jaula.spec.runtime_spec import (
    CPU,
    DeviceCgroup,
    HugepageLimit,
    InterfacePriority,
    Memory,
    Network,
    Pids,
    Rdma,
    Resources,
)

DENY_ALL = DeviceCgroup(allow=False, access="rwm")
NOTHING = {}.get


def test_default_devices_follow_the_spec_s_rules() -> None:
    own = (DENY_ALL, DeviceCgroup(allow=True, type="c", major=10, minor=200, access="rw"))
    assert with_default_devices(own) == (*own, *DEFAULT_DEVICES)
    assert with_default_devices(()) == (DENY_ALL, *DEFAULT_DEVICES)
    assert with_default_devices(own[1:]) == (DENY_ALL, *own[1:], *DEFAULT_DEVICES)
    assert not any(rule.everything for rule in device_rules.normalize(DEFAULT_DEVICES))


def test_allow_all_stays_with_default_devices() -> None:
    everything = (DeviceCgroup(allow=True, access="rwm"),)
    assert with_default_devices(everything)[0] == everything[0]


def test_a_malformed_first_rule_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        with_default_devices((DeviceCgroup(allow=False, type="x"),))


def test_without_a_cgroup_a_container_runs_but_not_with_limits() -> None:
    cgroup = null_driver.NullCgroup("/x")
    assert cgroup.apply(Resources(devices=(DENY_ALL,))) == ()
    assert cgroup.apply(Resources(memory=Memory(), cpu=CPU(shares=0), pids=Pids(limit=-1))) == ()
    with pytest.raises(Unsupported, match=r"cannot limit memory, cpu: .*no cgroup"):
        cgroup.apply(Resources(memory=Memory(limit=5), cpu=CPU(cpus="0")))
    with pytest.raises(Unsupported, match="cannot pause"):
        cgroup.freeze()
    cgroup.kill()
    cgroup.destroy()
    assert (cgroup.open_attach_fds(), cgroup.pids(), cgroup.directory_fd()) == ((), (), None)


def test_a_host_without_or_with_forbidden_cgroups_gives_a_null_cgroup() -> None:
    class Forbidding(null_driver.NullDriver):
        def create(self, path: str) -> null_driver.NullCgroup:
            raise NotAuthorized(f"cannot make cgroup {path}: Permission denied")

    assert null_driver.NullDriver(None).create("/x").pids() == ()
    assert null_driver.NullDriver(None).open("/x").stats() == Stats()
    made = null_driver.NullDriver(Forbidding(None)).create("/x")
    with pytest.raises(Unsupported, match="Permission denied"):
        made.apply(Resources(pids=Pids(limit=5)))


def test_rdma_writes_only_values_that_are_set() -> None:
    requested = {
        "mlx5_0": Rdma(hca_handles=2, hca_objects=2000),
        "m1": Rdma(hca_objects=0),
        "n": Rdma(),
    }
    assert RdmaController().decide(Resources(rdma=requested), NOTHING) == (
        FileWrite("rdma.max", "mlx5_0 hca_handle=2 hca_object=2000"),
        FileWrite("rdma.max", "m1 hca_object=0"),
    )
    with pytest.raises(InvalidRequest, match="bad rdma device"):
        RdmaController().decide(Resources(rdma={"a b": Rdma(hca_handles=1)}), NOTHING)


def test_network_class_and_priorities() -> None:
    network = Network(class_id=1048577, priorities=(InterfacePriority(name="eth0", priority=5),))
    requested = Resources(network=network)
    assert NetCls().decide(requested, NOTHING) == (FileWrite("net_cls.classid", "1048577"),)
    assert NetPrio().decide(requested, NOTHING) == (FileWrite("net_prio.ifpriomap", "eth0 5"),)
    bad = Network(priorities=(InterfacePriority(name="a b", priority=5),))
    with pytest.raises(InvalidRequest, match="bad network interface name"):
        NetPrio().decide(Resources(network=bad), NOTHING)


def test_v1_limits_reserved_huge_pages_if_supported() -> None:
    requested = Resources(hugepage_limits=(HugepageLimit(page_size="2MB", limit=5),))
    plain = FileWrite("hugetlb.2MB.limit_in_bytes", "5")
    assert Hugetlb().decide(requested, NOTHING) == (plain,)
    name = "hugetlb.2MB.rsvd.limit_in_bytes"
    assert Hugetlb().decide(requested, {name: "9"}.get) == (plain, FileWrite(name, "5"))


def test_page_sizes_have_the_names_of_the_kernel() -> None:
    assert [hugetlb_page_size.format_size(kib) for kib in (64, 2048, 32768, 1048576)] == [
        "64KB",
        "2MB",
        "32MB",
        "1GB",
    ]
    assert all(hugetlb_page_size.validate(size) == size for size in hugetlb_page_size.host_sizes())


@pytest.mark.parametrize(
    ("name", "value", "kind", "text"),
    [
        ("memory/high", "1", InvalidRequest, "no slashes"),
        ("memory", "1", InvalidRequest, "CONTROLLER.PARAMETER"),
        ("cgroup.freeze", "1", InvalidRequest, "may not be set"),
        ("memory.high", "", InvalidRequest, "has no value"),
        ("hugetlb.2MB.max", "1", Unsupported, "controller 'hugetlb' not available"),
        ("memory.nonsense", "1", Unsupported, "no such limit"),
    ],
)
def test_a_bad_unified_resource_is_refused_before_a_write(
    name: str, value: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        unified.decide({name: value}, ["memory", "io"], {"memory.high": "max"}.get)


def test_a_unified_value_of_several_lines_is_several_writes() -> None:
    now = {"io.max": "", "cgroup.max.depth": "max"}.get
    requested = {"io.max": "8:0 rbps=1\n8:16 rbps=2\n", "cgroup.max.depth": "3"}
    assert unified.decide(requested, ["io"], now) == (
        FileWrite("io.max", "8:0 rbps=1"),
        FileWrite("io.max", "8:16 rbps=2"),
        FileWrite("cgroup.max.depth", "3"),
    )


def test_pressure_is_read_line_by_line() -> None:
    text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=x\nelse\n"
    assert pressure.parse(text) == Pressure(some=PressureLine(1.5, 0.25, 0.0, 123))


def test_v1_counters_of_block_devices_with_and_without_an_operation() -> None:
    files = {
        "blkio.bfq.io_service_bytes_recursive": "Total 0\n",
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 5\n8:0 Total 5\nTotal 5\n\nx\n",
        "blkio.sectors_recursive": "8:16 7\n",
    }
    lists = blkio.stats(files.get, detailed=True).lists
    assert [(c.operation, c.value) for c in lists["io_service_bytes"]] == [
        ("Read", 5),
        ("Total", 5),
    ]
    assert [(c.minor, c.operation, c.value) for c in lists["sectors"]] == [(16, "", 7)]


def test_v1_time_by_cpu() -> None:
    files = {
        "cpuacct.usage_percpu": "5 7 ",
        "cpuacct.usage_all": "cpu user system\n0 1 2\n1 3 4\nodd\n",
    }
    assert cpu_v1.by_cpu(files.get) == ((5, 7), (1, 3), (2, 4))
    assert cpu_v1.by_cpu(NOTHING) == ((), (), ())


def test_the_events_document_has_runc_s_names() -> None:
    stats = Stats(
        cpu=CpuStats(10, 6, 4, 3, 2, 1, (10,), (6,), (4,), Pressure()),
        memory=MemoryStats(
            usage=100,
            limit=200,
            peak=150,
            failures=1,
            details={"file": 30},
            with_swap=MemoryCounter(110, None, 0, 2),
            events={"oom_kill": 1},
        ),
        pids=PidsStats(2, None),
        blkio=BlkioStats((IoEntry(8, 0, 1, 2, 3, 4),)),
        hugetlb={"2MB": HugetlbStats(5, 6, 7)},
    )
    document = events_document(stats)
    line = {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0}
    assert document["cpu"] == {
        "usage": {
            "total": 10,
            "percpu": [10],
            "percpu_kernel": [4],
            "percpu_user": [6],
            "kernel": 4,
            "user": 6,
        },
        "throttling": {"periods": 3, "throttledPeriods": 2, "throttledTime": 1},
        "psi": {"some": line, "full": line},
    }
    assert document["memory"] == {
        "cache": 30,
        "usage": {"limit": 200, "usage": 100, "max": 150, "failcnt": 1},
        "swap": {"limit": 2**64 - 1, "usage": 110, "failcnt": 2},
        "kernel": {"limit": 2**64 - 1, "failcnt": 0},
        "kernelTCP": {"limit": 2**64 - 1, "failcnt": 0},
        "raw": {"file": 30},
        "event_count": {"oom_kill": 1},
    }
    assert document["pids"] == {"current": 2}
    assert document["blkio"] == {
        "ioServiceBytesRecursive": [
            {"major": 8, "op": "Read", "value": 1},
            {"major": 8, "op": "Write", "value": 2},
        ],
        "ioServicedRecursive": [
            {"major": 8, "op": "Read", "value": 3},
            {"major": 8, "op": "Write", "value": 4},
        ],
    }
    assert document["hugetlb"] == {"2MB": {"usage": 5, "max": 6, "failcnt": 7}}
    assert document["cpuset"]["cpu_exclusive"] == 0
    assert document["intel_rdt"] == {}
