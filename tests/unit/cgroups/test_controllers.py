"""Writes of each controller, without a cgroup."""

from __future__ import annotations

import errno
from collections.abc import Mapping

import pytest

from jaula.cgroups import cgroup_files, cgroup_limits, pids
from jaula.cgroups.cgroup_files import FileWrite, Reader, Step, WriteWarning
from jaula.cgroups.controller import Controller, requested
from jaula.cgroups.v1 import blkio, cgroup_v1, cpu_v1, cpuset_v1, devices_v1, hugetlb_v1, memory_v1
from jaula.cgroups.v2 import cgroup_v2, cpu_v2, hugetlb_v2, io, memory_v2
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, Unsupported
from jaula.spec.runtime_spec import (
    CPU,
    BlockIO,
    DeviceCgroup,
    HugepageLimit,
    Memory,
    Pids,
    Resources,
    ThrottleDevice,
    WeightDevice,
)

MAX = "9223372036854771712"
LIMIT, SWAP = memory_v1.LIMIT, memory_v1.SWAP


def having(files: Mapping[str, str]) -> Reader:
    return files.get


def decided(
    controller: Controller, resources: Resources, now: Mapping[str, str] | None = None
) -> list[tuple[str, str]]:
    steps: tuple[Step, ...] = controller.decide(resources, having(now or {}))
    return [(s.file, s.value) if isinstance(s, FileWrite) else ("remark", s.text) for s in steps]


@pytest.mark.parametrize(
    ("asked", "now", "order"),
    [
        (Memory(limit=10, swap=20), MAX, [(LIMIT, "10"), (SWAP, "20")]),
        (Memory(limit=10, swap=20), "5", [(SWAP, "20"), (LIMIT, "10")]),
        (Memory(limit=10, swap=20), "30", [(LIMIT, "10"), (SWAP, "20")]),
        (Memory(limit=10, swap=-1), "5", [(SWAP, "-1"), (LIMIT, "10")]),
        (Memory(limit=-1), "5", [(SWAP, "-1"), (LIMIT, "-1")]),
        (Memory(limit=10), MAX, [(LIMIT, "10")]),
        (Memory(swap=10), MAX, [(SWAP, "10")]),
        (Memory(), MAX, []),
    ],
)
def test_v1_memory_writes_in_the_order_that_the_kernel_accepts(
    asked: Memory, now: str, order: list[tuple[str, str]]
) -> None:
    assert decided(memory_v1.Memory(), Resources(memory=asked), {SWAP: now}) == order


def test_v1_memory_works_without_swap_accounting() -> None:
    steps = memory_v1.Memory().decide(Resources(memory=Memory(limit=10, swap=20)), having({}))
    assert [step.missing != "" for step in steps if isinstance(step, FileWrite)] == [False, True]


@pytest.mark.parametrize(
    ("requested", "swap", "now", "alone"),
    [
        (100, 100, None, "0"),
        (100, 250, None, "150"),
        (100, -1, None, "max"),
        (-1, None, None, "max"),
        (100, None, None, None),
        (None, 250, 100, "150"),
    ],
)
def test_v2_swap_is_the_sum_minus_memory(
    requested: int | None, swap: int | None, now: int | None, alone: str | None
) -> None:
    assert memory_v2.swap_max(requested, swap, now) == alone


@pytest.mark.parametrize(("requested", "swap"), [(100, 50), (None, 50), (-1, 50)])
def test_invalid_v2_swap_is_refused(requested: int | None, swap: int) -> None:
    with pytest.raises(InvalidRequest):
        memory_v2.swap_max(requested, swap, None)


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(2, 1), (1024, 100), (262144, 10000), (1, 1), (10**9, 10000), (2048, 170), (512, 59)],
)
def test_shares_convert_to_weights_at_ends_and_default(shares: int, weight: int) -> None:
    assert abs(cpu_v2.weight(shares) - weight) <= (0 if shares in (2, 1024, 262144) else 8)


def test_weights_never_fall_when_shares_rise() -> None:
    result = [cpu_v2.weight(shares) for shares in range(2, 262145, 97)]
    assert result == sorted(result)
    assert [io.weight(10), io.weight(1000), io.weight(5000)] == [1, 10000, 10000]


def test_v1_quota_is_removed_before_quota_and_period_change() -> None:
    asked = Resources(cpu=CPU(quota=1000, period=2000))
    plain = [("cpu.cfs_period_us", "2000"), ("cpu.cfs_quota_us", "1000")]
    assert decided(cpu_v1.Cpu(), asked, {"cpu.cfs_quota_us": "-1"}) == plain
    lifted = [("cpu.cfs_quota_us", "-1"), *plain]
    assert decided(cpu_v1.Cpu(), asked, {"cpu.cfs_quota_us": "500"}) == lifted


@pytest.mark.parametrize(
    ("asked", "value"),
    [
        (CPU(quota=5), "5 777"),
        (CPU(quota=-1), "max 777"),
        (CPU(period=9), "42 9"),
        (CPU(quota=5, period=9), "5 9"),
    ],
)
def test_v2_bandwidth_keeps_values_that_are_not_set(asked: CPU, value: str) -> None:
    now = {"cpu.max": "42 777"}
    assert decided(cpu_v2.Cpu(), Resources(cpu=asked), now) == [("cpu.max", value)]


def test_an_absent_limit_is_not_written() -> None:
    for controller in (
        cpu_v1.Cpu(),
        cpuset_v1.Cpuset(),
        memory_v1.Memory(),
        devices_v1.Devices(),
        blkio.Blkio(),
        pids.Pids(),
        hugetlb_v1.Hugetlb(),
        cpu_v2.Cpu(),
        memory_v2.Memory(),
        io.Io(),
        hugetlb_v2.Hugetlb(),
    ):
        assert decided(controller, Resources()) == []


@pytest.mark.parametrize(("limit", "value"), [(7, "7"), (0, "max"), (-1, "max")])
def test_no_pids_limit_is_max(limit: int, value: str) -> None:
    assert decided(pids.Pids(), Resources(pids=Pids(limit=limit))) == [("pids.max", value)]


def test_v1_devices_are_written_in_order() -> None:
    rules = (
        DeviceCgroup(allow=False, access="rwm"),
        DeviceCgroup(allow=True, type="c", major=1, minor=3, access="mr"),
        DeviceCgroup(allow=True, type="b", major=8, access="r"),
        DeviceCgroup(allow=True, access="m"),
    )
    assert decided(devices_v1.Devices(), Resources(devices=rules)) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:3 rm"),
        ("devices.allow", "b 8:* r"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "b *:* m"),
    ]


def test_block_io_has_each_version_s_format() -> None:
    asked = Resources(
        block_io=BlockIO(
            weight=500,
            weight_device=(WeightDevice(8, 0, weight=10),),
            throttle_read_bps_device=(ThrottleDevice(8, 0, 1000),),
            throttle_write_iops_device=(ThrottleDevice(8, 16, 0),),
        )
    )
    assert decided(blkio.Blkio(), asked) == [
        ("blkio.bfq.weight", "500"),
        ("blkio.bfq.weight_device", "8:0 10"),
        ("blkio.throttle.read_bps_device", "8:0 1000"),
        ("blkio.throttle.write_iops_device", "8:16 0"),
    ]
    assert decided(io.Io(), asked) == [
        ("io.weight", "4950"),
        ("io.weight", "8:0 1"),
        ("io.max", "8:0 rbps=1000"),
        ("io.max", "8:16 wiops=max"),
    ]


@pytest.mark.parametrize("size", ["2MB/../x", "MB", "2", "", "²MB"])
def test_a_bad_page_size_is_refused(size: str) -> None:
    asked = Resources(hugepage_limits=(HugepageLimit(size, 1),))
    for controller in (hugetlb_v1.Hugetlb(), hugetlb_v2.Hugetlb()):
        with pytest.raises(InvalidRequest):
            decided(controller, asked)


def test_missing_v2_limits_are_warnings() -> None:
    asked = Resources(memory=Memory(limit=10, swappiness=1, disable_oom_killer=True))
    assert [name for name, _ in decided(memory_v2.Memory(), asked)][1:] == ["remark", "remark"]
    assert WriteWarning("x").describe() == "x"
    assert FileWrite("pids.max", "3").describe() == "write '3' to pids.max"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, Unsupported),
        (errno.EINVAL, InvalidRequest),
        (errno.ERANGE, InvalidRequest),
        (errno.EBUSY, Conflict),
        (errno.EACCES, NotAuthorized),
        (errno.EIO, JaulaError),
    ],
)
def test_a_write_error_has_the_requested_value(number: int, kind: type[JaulaError]) -> None:
    error = cgroup_files.write_error("/jaula/x", FileWrite("pids.max", "3"), OSError(number, "why"))
    assert type(error) is kind
    assert "cannot set pids.max of cgroup /jaula/x to '3'" in error.message


def test_statistics_of_odd_files_are_zero_not_an_error() -> None:
    odd = having(
        {"memory.stat": "a\nb c\n\xff 1", "io.stat": "x:y z\n\n8:0 rbytes=q", "cpu.stat": ""}
    )
    assert memory_v2.stats(odd).usage == 0
    assert [e.read_bytes for e in io.stats(odd).devices] == [0]
    assert cpu_v2.stats(odd).usage == 0
    text = "8:0 Read 5\n8:0 Write 6\nTotal 11\nnonsense"
    result = blkio.stats(having({"blkio.throttle.io_service_bytes_recursive": text}))
    assert (result.read_bytes, result.write_bytes) == (5, 6)


def test_missing_features_have_docker_s_words() -> None:
    lines = cgroup_limits.warnings(set(cgroup_limits.FEATURES) - {"swap"}, 1)
    assert lines == ("WARNING: No swap limit support",)
    assert cgroup_limits.warnings(set(cgroup_limits.FEATURES) - {"oom.control"}, 2) == ()


def test_a_controller_is_queried_only_if_the_spec_has_its_section() -> None:
    controllers = (*cgroup_v1.CONTROLLERS.values(), *cgroup_v2.CONTROLLERS)
    for controller in controllers:
        assert not requested(controller, Resources())
        assert not controller.section or controller.section in Resources.__struct_fields__
    cpu_only = Resources(cpu=CPU())
    names = {each.name for each in controllers if requested(each, cpu_only)}
    assert names == {"cpu", "cpuset"}
