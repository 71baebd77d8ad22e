"""I10: devices only by allow-list; mknod refused or useless; nodev where nothing needs devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine

EXPECTED = {
    *("null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr"),
    *("pts", "ptmx", "shm", "mqueue", "core", "console"),
}
KINDS = (("c", 1, 1), ("b", 8, 0), ("c", 10, 200), ("b", 254, 0), ("c", 1, 3))


def test_dev_has_the_default_devices_only(engine: PrivateEngine, plain: str) -> None:
    result = set(engine.cli("jaula", "exec", plain, "ls", "/dev").stdout.split())
    assert result <= EXPECTED, result - EXPECTED
    assert {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm"} <= result


@pytest.mark.parametrize(("kind", "major", "minor"), KINDS)
@pytest.mark.parametrize("flags", [(), ("--privileged",)])
def test_a_device_node_created_inside_cannot_be_opened(
    engine: PrivateEngine, busybox: str, kind: str, major: int, minor: int, flags: tuple[str, ...]
) -> None:
    words = f"mknod /made {kind} {major} {minor} && head -c 1 /made"
    done = engine.cli("jaula", "run", "--rm", *flags, busybox, "sh", "-c", words)
    assert done.returncode != 0
    assert done.stdout == ""


@pytest.mark.parametrize("advisory", ["GHSA-g54h-m393-cpwq"])
def test_the_device_cgroup_lists_the_allowed_devices(
    engine: PrivateEngine, plain: str, advisory: str
) -> None:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("cgroup v2 has a program and no list; opening devices is tested here too")
    text = containers.cgroup_file(containers.pid(engine, plain), "devices", "devices.list", "")
    rules = {tuple(line.split()) for line in text.splitlines()}
    usable = {rule for rule in rules if set(rule[2]) & set("rw")}
    assert ("a", "*:*", "rwm") not in rules
    allowed = {"1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*"}
    assert {rule[1] for rule in usable} <= allowed, usable
    assert {rule[0] for rule in usable} == {"c"}


@pytest.mark.parametrize("advisory", ["GHSA-g54h-m393-cpwq"])
def test_only_the_requested_device_is_available(
    engine: PrivateEngine, busybox: str, advisory: str
) -> None:
    flags = ("--device", "/dev/null:/dev/asked:r")
    words = "head -c 1 /dev/asked && (echo x > /dev/asked) 2>/dev/null && echo writable; true"
    done = engine.cli("jaula", "run", "--rm", *flags, busybox, "sh", "-c", words)
    assert done.returncode == 0, done.stderr


def test_mounts_without_devices_are_nodev(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    volume = containers.unique("nodev")
    flags = ("-v", f"{volume}:/volume", "-v", f"{tmp_path}:/bound", "--tmpfs", "/scratch")
    with containers.running(engine, busybox, flags=flags) as name:
        result = containers.mountinfo(containers.pid(engine, name))
    engine.request("DELETE", f"/volumes/{volume}?force=1")
    for path in ("/volume", "/scratch", "/dev/shm", "/dev/mqueue", "/proc", "/sys", "/etc/hosts"):
        assert "nodev" in result[path].options, f"{path}: {result[path].options}"
