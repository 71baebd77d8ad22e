"""A control of a running container's cgroup that another program changes fails in its row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.audits import Audited
from harness.disk import disk
from harness.engine import PrivateEngine


@pytest.fixture(scope="module")
def default(engine: PrivateEngine, busybox: str) -> Iterator[Audited]:
    with containers.running(engine, busybox) as name:
        yield Audited(engine, name)


@pytest.fixture(scope="module")
def limited(engine: PrivateEngine, busybox: str) -> Iterator[Audited]:
    flags = ("-m", "64m", "--memory-reservation", "32m", "--memory-swappiness", "10")
    with containers.running(engine, busybox, flags=(*flags, "--cpuset-mems", "0")) as name:
        yield Audited(engine, name)


def changed(audited: Audited, file: Path, value: str, restore: str) -> set[str]:
    """Return the rows that fail while a file has a value."""
    file.write_text(value)
    try:
        return set(audited.failing())
    finally:
        file.write_text(restore)


@pytest.mark.parametrize(
    ("v1", "v2", "value", "restore", "row"),
    [
        ("memory.soft_limit_in_bytes", "memory.low", "1048576", "", "memory reservation"),
        ("memory.swappiness", "", "5", "", "swappiness"),
        ("memory.oom_control", "", "1", "0", "oom killer"),
        ("blkio.bfq.weight", "io.bfq.weight", "500", "100", "io weight"),
        ("freezer.state", "cgroup.freeze", "FROZEN", "THAWED", "frozen"),
    ],
)
def test_a_control_that_was_not_requested_fails(
    default: Audited, v1: str, v2: str, value: str, restore: str, row: str
) -> None:
    file = default.control(v1, v2)
    if file.name == "cgroup.freeze":
        value, restore = "1", "0"
    before = file.read_text().strip()
    if file.name == "memory.soft_limit_in_bytes":
        before = "-1"
    assert changed(default, file, value, restore or before) == {row}
    assert default.failing() == {}, default.explain()


@pytest.mark.parametrize("rate", ["read_bps", "write_bps", "read_iops", "write_iops"])
def test_a_rate_that_was_not_requested_fails(default: Audited, rate: str) -> None:
    file = default.control(f"blkio.throttle.{rate}_device", "io.max")
    _, major, minor = disk()
    device = f"{major}:{minor}"
    value, restore = f"{device} 1048576", f"{device} 0"
    if file.name == "io.max":
        key = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops"}.get(rate, "wiops")
        value, restore = f"{device} {key}=1048576", f"{device} {key}=max"
    assert changed(default, file, value, restore) == {f"io {rate}"}


@pytest.mark.parametrize(
    ("v1", "v2", "value", "restore", "row"),
    [
        ("memory.soft_limit_in_bytes", "memory.low", "1048576", "33554432", "memory reservation"),
        ("memory.swappiness", "", "60", "10", "swappiness"),
    ],
)
def test_a_control_other_than_the_requested_one_fails(
    limited: Audited, v1: str, v2: str, value: str, restore: str, row: str
) -> None:
    assert limited.failing() == {}, limited.explain()
    assert changed(limited, limited.control(v1, v2), value, restore) == {row}


def test_requested_rates_pass_and_their_removal_fails(engine: PrivateEngine, busybox: str) -> None:
    name, major, minor = disk()
    if not Path(f"/dev/{name}").exists():
        pytest.skip("this machine shows no disk in /dev")
    flags = ("--device-read-bps", f"/dev/{name}:1mb", "--blkio-weight", "200")
    with containers.running(engine, busybox, flags=flags) as container:
        audited = Audited(engine, container)
        assert audited.failing() == {}, audited.explain()
        file = audited.control("blkio.throttle.read_bps_device", "io.max")
        none = "rbps=max" if file.name == "io.max" else "0"
        file.write_text(f"{major}:{minor} {none}")
        assert set(audited.failing()) == {"io read_bps"}


def test_a_paused_container_passes_and_fails_when_it_runs(
    engine: PrivateEngine, default: Audited
) -> None:
    engine.cli("jaula", "pause", default.name)
    try:
        assert default.failing() == {}, default.explain()
        file = default.control("freezer.state", "cgroup.freeze")
        one = file.name == "cgroup.freeze"
        assert changed(default, file, "0" if one else "THAWED", "1" if one else "FROZEN") == {
            "frozen"
        }
    finally:
        engine.cli("jaula", "unpause", default.name)
