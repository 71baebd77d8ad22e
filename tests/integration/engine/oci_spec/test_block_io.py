"""Limits of block devices, measured: a loop device that a container writes past the page cache."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine

SIZE = 4 << 20  # bytes that are written or read


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop device over a file."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(2 * SIZE)
    done = subprocess.run(
        ["losetup", "--find", "--show", "--direct-io=off", str(image)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    name = done.stdout.strip()
    try:
        yield name
    finally:
        subprocess.run(["losetup", "--detach", name], check=True)


def seconds(engine: PrivateEngine, image: str, device: str, way: str, *flags: str) -> float:
    """How long ``SIZE`` bytes take, without the start of the container."""
    count = SIZE >> 16
    words = {
        "write": f"dd if=/dev/zero of=/dev/disk bs=64k count={count} oflag=direct",
        "read": f"dd if=/dev/disk of=/dev/null bs=64k count={count} iflag=direct",
    }
    given = ("--device", f"{device}:/dev/disk", *flags)
    with containers.running(engine, image, flags=given) as name:
        begin = time.monotonic()
        done = engine.cli("docker", "exec", name, "sh", "-c", words[way])
        assert done.returncode == 0, done.stderr
        return time.monotonic() - begin


@pytest.mark.parametrize(
    ("way", "flag", "rate"),
    [
        ("write", "--device-write-bps", "2mb"),
        ("read", "--device-read-bps", "2mb"),
        ("write", "--device-write-iops", "30"),
        ("read", "--device-read-iops", "30"),
    ],
)
def test_a_device_is_throttled_as_requested(
    engine: PrivateEngine, busybox: str, device: str, way: str, flag: str, rate: str
) -> None:
    free = seconds(engine, busybox, device, way)
    limited = seconds(engine, busybox, device, way, flag, f"{device}:{rate}")
    assert limited > 1.6, f"{limited:.2f} s; without a limit {free:.2f} s"
    assert limited < 12
    assert free < limited / 2


def test_an_update_sets_keeps_and_clears_the_rates_of_a_device(
    engine: PrivateEngine, busybox: str, device: str
) -> None:
    def rates(process: int) -> tuple[str, str]:
        return (
            containers.cgroup_file(process, "blkio", "blkio.throttle.write_bps_device", "io.max"),
            containers.cgroup_file(process, "blkio", "blkio.throttle.read_iops_device", "io.max"),
        )

    def update(**body: object) -> None:
        reply = engine.request("POST", f"/containers/{name}/update", body)
        assert reply.status == 200, reply

    flags = ("--device-write-bps", f"{device}:2mb")
    with containers.running(engine, busybox, flags=flags) as name:
        process = containers.pid(engine, name)
        assert str(2 << 20) in rates(process)[0]
        update(BlkioDeviceReadIOps=[{"Path": device, "Rate": 77}])
        assert str(2 << 20) in rates(process)[0]
        assert "77" in rates(process)[1]
        update(BlkioDeviceWriteBps=[], BlkioDeviceReadIOps=None)
        assert str(2 << 20) not in rates(process)[0]
        assert "77" in rates(process)[1]
        host = containers.inspect(engine, name)["HostConfig"]
        assert host["BlkioDeviceWriteBps"] == []
        assert host["BlkioDeviceReadIOps"] == [{"Path": device, "Rate": 77}]
        assert engine.cli("jaula", "verify", name).returncode == 0


def test_an_invalid_device_is_an_error(engine: PrivateEngine, busybox: str) -> None:
    host = {"BlkioDeviceWriteBps": [{"Path": "/dev/no-such", "Rate": 1 << 20}]}
    body = {"Image": busybox, "Cmd": ["true"], "HostConfig": host}
    name = containers.unique("bio")
    made = engine.request("POST", f"/containers/create?name={name}", body)
    try:
        if made.status == 201:
            made = engine.request("POST", f"/containers/{name}/start")
        assert (made.status, "/dev/no-such" in made.json()["message"]) == (400, True)
    finally:
        engine.request("DELETE", f"/containers/{name}")
