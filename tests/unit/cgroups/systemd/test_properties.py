"""Limits and annotations as unit properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.cgroups.systemd import unit_annotations
from jaula.cgroups.systemd.properties import (
    INFINITY,
    UnitProperty,
    resource_properties,
    scope_properties,
)
from jaula.cgroups.systemd.systemd_cgroup import major
from jaula.cgroups.systemd.systemd_driver import split_path
from jaula.errors import InvalidRequest
from jaula.spec.runtime_spec import CPU, BlockIO, DeviceCgroup, Memory, Pids, Resources

TABLE = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n136 blockish\n"
DENY_ALL = DeviceCgroup(allow=False, access="rwm")


def decided(
    resources: Resources,
    now: dict[str, str] | None = None,
    *,
    version: int = 2,
    systemd: int = 257,
    devices: str | None = None,
) -> dict[str, Any]:
    found = resource_properties(
        resources, (now or {}).get, version=version, systemd=systemd, devices=devices
    )
    return {p.name: p.value for p in found}


def test_a_new_scope_is_delegated_and_holds_the_pause_process() -> None:
    found = scope_properties("p-n.scope", "a.slice", 77, "container p-n", 2)
    assert [p.wire() for p in found] == [
        ("Description", ("s", "container p-n")),
        ("Slice", ("s", "a.slice")),
        ("Delegate", ("b", True)),
        ("PIDs", ("au", [77])),
        ("MemoryAccounting", ("b", True)),
        ("CPUAccounting", ("b", True)),
        ("IOAccounting", ("b", True)),
        ("TasksAccounting", ("b", True)),
        ("DefaultDependencies", ("b", False)),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]


def test_a_new_slice_holds_no_process() -> None:
    names = {p.name for p in scope_properties("a-b.slice", "a.slice", None, "x", 1)}
    assert {"Wants", "BlockIOAccounting"} < names
    assert not {"Slice", "PIDs", "Delegate"} & names


@pytest.mark.parametrize(
    ("asked", "now", "found"),
    [
        (Resources(), {}, {}),
        (
            Resources(memory=Memory(limit=10, swap=30, reservation=5)),
            {},
            {"MemoryMax": 10, "MemorySwapMax": 20, "MemoryLow": 5},
        ),
        (
            Resources(memory=Memory(limit=-1)),
            {"memory.max": "5"},
            {"MemoryMax": INFINITY, "MemorySwapMax": INFINITY},
        ),
        (Resources(memory=Memory(swap=30)), {"memory.max": "20"}, {"MemorySwapMax": 10}),
        (Resources(cpu=CPU(shares=1024)), {}, {"CPUWeight": 100}),
        (Resources(cpu=CPU(shares=1024, idle=1)), {}, {"CPUWeight": 0}),
        (
            Resources(cpu=CPU(quota=33_333)),
            {"cpu.max": "max 50000"},
            {"CPUQuotaPeriodUSec": 50_000, "CPUQuotaPerSecUSec": 670_000},
        ),
        (
            Resources(cpu=CPU(period=20_000)),
            {"cpu.max": "10000 100000"},
            {"CPUQuotaPeriodUSec": 20_000, "CPUQuotaPerSecUSec": 500_000},
        ),
        (
            Resources(cpu=CPU(quota=-1)),
            {},
            {"CPUQuotaPeriodUSec": 100_000, "CPUQuotaPerSecUSec": INFINITY},
        ),
        (
            Resources(cpu=CPU(cpus="0-2,9", mems="0")),
            {},
            {"AllowedCPUs": b"\x07\x02", "AllowedMemoryNodes": b"\x01"},
        ),
        (Resources(pids=Pids(limit=0)), {}, {"TasksMax": INFINITY}),
        (Resources(block_io=BlockIO(weight=1000)), {}, {"IOWeight": 10_000}),
        (
            Resources(
                unified={
                    "memory.high": "max",
                    "cpu.max": "50000",
                    "io.weight": "default 7",
                    "cpuset.cpus": "1",
                    "hugetlb.2MB.max": "0",
                }
            ),
            {},
            {
                "MemoryHigh": INFINITY,
                "CPUQuotaPeriodUSec": 100_000,
                "CPUQuotaPerSecUSec": 500_000,
                "IOWeight": 7,
                "AllowedCPUs": b"\x02",
            },
        ),
    ],
)
def test_v2_limits_as_properties(
    asked: Resources, now: dict[str, str], found: dict[str, Any]
) -> None:
    assert decided(asked, now) == found


def test_v1_limits_as_properties() -> None:
    asked = Resources(
        memory=Memory(limit=10, swap=30, reservation=5),
        cpu=CPU(shares=512, quota=5_000),
        block_io=BlockIO(weight=300),
    )
    now = {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "10000"}
    assert decided(asked, now, version=1, systemd=241) == {
        "MemoryLimit": 10,
        "CPUShares": 512,
        "CPUQuotaPerSecUSec": 500_000,
        "BlockIOWeight": 300,
    }


@pytest.mark.parametrize(
    "unified",
    [{"memory.max": "lots"}, {"cpu.max": "1 2 3"}, {"cpu.max": "5 0"}, {"cpuset.cpus": "a"},
     {"pids.max": "-1"}, {"cpu.max": ""}, {"memory.high": str(2**64)}],
)  # fmt: skip
def test_a_bad_unified_value_is_refused(unified: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        decided(Resources(unified=unified))


def test_device_rules_as_unit_properties() -> None:
    null = DeviceCgroup(allow=True, type="c", major=1, minor=3, access="rw")
    pts = DeviceCgroup(allow=True, type="c", major=136, access="rwm")
    nodes = DeviceCgroup(allow=True, type="b", access="m")
    asked = Resources(devices=(DENY_ALL, null, pts, nodes))
    assert decided(asked, devices=TABLE) == {
        "DevicePolicy": "strict",
        "DeviceAllow": [("/dev/char/1:3", "rw"), ("char-pts", "rwm"), ("block-*", "m")],
    }
    everything = Resources(devices=(DENY_ALL, null, DeviceCgroup(allow=True, access="rwm")))
    assert decided(everything, devices=TABLE) == {"DevicePolicy": "auto", "DeviceAllow": []}


@pytest.mark.parametrize(
    "devices",
    [
        (DENY_ALL, DeviceCgroup(allow=True, type="c", major=250, access="r")),  # no such group
        (DENY_ALL, DeviceCgroup(allow=True, type="c", minor=1, access="r")),
        (DENY_ALL, DeviceCgroup(allow=False, type="c", major=1, minor=3, access="w")),
        (DeviceCgroup(allow=True, type="c", major=1, minor=3, access="w"),),
    ],
)
def test_other_device_rules_are_left_to_the_cgroup(
    devices: tuple[DeviceCgroup, ...],
) -> None:
    assert decided(Resources(devices=devices), devices=TABLE) == {}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("CollectMode", "'inactive-or-failed'", ("CollectMode", "s", "inactive-or-failed")),
        ("TimeoutStopUSec", "uint64 123456789", ("TimeoutStopUSec", "t", 123456789)),
        ("TimeoutStopSec", "5", ("TimeoutStopUSec", "t", 5_000_000)),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", "t", 1_500_000)),
        ("OOMScoreAdjust", "-10", ("OOMScoreAdjust", "i", -10)),
        ("SendSIGKILL", "false", ("SendSIGKILL", "b", False)),
        ("CPUWeight", "@t 0x10", ("CPUWeight", "t", 16)),
        ("After", "['a.service', \"b.service\"]", ("After", "as", ["a.service", "b.service"])),
        ("After", "@as []", ("After", "as", [])),
        ("Description", "'it\\'s'", ("Description", "s", "it's")),
    ],
)
def test_annotations_in_text_form(name: str, text: str, found: tuple[str, str, Any]) -> None:
    given = {unit_annotations.PREFIX + name: text, "org.other": "x"}
    assert unit_annotations.properties(given) == (UnitProperty(*found),)


@pytest.mark.parametrize(
    ("name", "text"),
    [("", "1"), ("lower", "1"), ("A1", "1"), ("Name", ""), ("Name", "'open"), ("Name", "word"),
     ("Name", "uint64 -1"), ("Name", "byte 256"), ("Name", "['a' 'b']"), ("Name", "[1]"),
     ("Name", "'a' b"), ("Name", "['a'] b"), ("Name", "'\\x'"), ("Name", "@q 'a'"),
     ("TimeoutStopSec", "-1"), ("Name", "string 5"), ("TimeoutStopSec", "inf.0")],
)  # fmt: skip
def test_a_bad_annotation_is_named(name: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"org\.systemd\.property\."):
        unit_annotations.properties({unit_annotations.PREFIX + name: text})


@given(st.text(max_size=30))
def test_any_annotation_is_a_value_or_an_error(text: str) -> None:
    try:
        (found,) = unit_annotations.properties({unit_annotations.PREFIX + "RuntimeMaxSec": text})
    except InvalidRequest:
        return
    assert found.signature


def test_the_version_of_systemd_is_its_first_number() -> None:
    assert [major(text) for text in ("257.9-1~deb13u1", "v245", '"239', "beta")] == [
        257,
        245,
        239,
        0,
    ]


def test_a_path_splits_into_slice_and_unit() -> None:
    assert split_path("/a.slice/a-b.slice/x.scope") == ("a-b.slice", "x.scope")
    assert split_path("/x.scope") == ("-.slice", "x.scope")
    for bad in ("/a.slice/x", "/a/x.scope", "/a.scope/x.scope", "/a.slice/../x.scope"):
        with pytest.raises(InvalidRequest):
            split_path(bad)
