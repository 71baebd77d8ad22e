"""Bind mounts of file systems without id maps: those of the kernel, and trees that contain them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.kernel import mountinfo

KERNEL_TREES = ("/", "/proc", "/sys", "/dev", "/run", "/var/run", "/sys/fs/cgroup")


@pytest.fixture(autouse=True)
def host_mounts() -> Iterator[None]:
    """Check that nothing was mounted on the host."""
    before = {mount.mount_id for mount in mountinfo.read()}
    yield
    others = ("/tmp/jlt", "/run/jlt", "/tmp/pytest", "/var/tmp/jlc", "/var/tmp/jfd", "/run/jfd")
    made = [mount for mount in mountinfo.read() if mount.mount_id not in before]
    assert [mount for mount in made if not mount.target.startswith(others)] == []


@pytest.mark.parametrize("mode", ["ro", "rw", "ro,rslave"])
@pytest.mark.parametrize("source", KERNEL_TREES)
def test_a_tree_of_the_kernel_is_bound(
    engine: PrivateEngine, busybox: str, source: str, mode: str
) -> None:
    flags = ("-v", f"{source}:/host:{mode}")
    done = engine.cli("jaula", "run", "--rm", *flags, busybox, "ls", "/host")
    errors = done.stderr.splitlines()  # of processes that have exited meanwhile
    assert all(line.endswith("No such file or directory") for line in errors), done.stderr
    missing = set(done.stdout.split()) ^ set(os.listdir(source))
    assert not {name for name in missing if not (name.isdigit() or name.startswith("jlt"))}


def test_a_node_exporter_reads_the_host(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--network", "host", "--pid", "host", "-v", "/:/host:ro,rslave", "-u", "65534:65534")
    script = (
        "grep -c cpu /host/proc/stat; cat /host/sys/class/net/lo/ifindex;"
        " cat /host/etc/hostname; grep -c . /host/proc/1/mountinfo;"
        " cat /host/etc/shadow; echo x > /host/tmp/made"
    )
    done = engine.cli("jaula", "run", "--rm", *flags, busybox, "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert int(lines[0]) > 1
    assert lines[1] == "1"
    assert lines[2] == Path("/etc/hostname").read_text().strip()
    assert int(lines[3]) > 1
    assert "'/host/etc/shadow': Permission denied" in done.stderr
    assert "/host/tmp/made: Read-only file system" in done.stderr


def test_a_cadvisor_reads_the_hosts_cgroups(engine: PrivateEngine, busybox: str) -> None:
    binds = ("/:/rootfs:ro", "/var/run:/var/run:ro", "/sys:/sys:ro", "/dev:/dev:ro")
    flags = tuple(word for bind in binds for word in ("-v", bind))
    with containers.running(engine, busybox, flags=(*flags, "-t")) as name:
        container = containers.inspect(engine, name)["Id"]
        script = f"find /sys/fs/cgroup/*/ -maxdepth 3 -name {container}; tty; ls /rootfs/sys/fs"
        done = engine.cli("jaula", "exec", name, "sh", "-c", script)
        assert f"{engine.cgroup_parent}/{container}" in done.stdout
        shown = {
            mount["Destination"]: mount for mount in containers.inspect(engine, name)["Mounts"]
        }
        verified = engine.cli("jaula", "verify", name)
    assert not shown["/sys"]["IDMapped"]
    assert not shown["/dev"]["IDMapped"]
    relaxed = [line for line in verified.stdout.splitlines() if "no id map" in line]
    assert all(line.endswith("relaxed") for line in relaxed)
    for destination in ("/rootfs", "/sys", "/dev"):
        assert any(f" bind {destination} " in line for line in relaxed), verified.stdout


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("/proc", "sys/kernel/core_pattern"),
        ("/proc", "sysrq-trigger"),
        ("/sys", "kernel/uevent_seqnum"),
        ("/sys/fs/cgroup", "memory/memory.use_hierarchy"),
        ("/", "proc/sys/kernel/core_pattern"),
        ("/dev", "made"),
    ],
)
def test_root_inside_writes_only_what_others_of_the_host_may(
    engine: PrivateEngine, busybox: str, source: str, path: str
) -> None:
    flags = ("-v", f"{source}:/host", "--security-opt", "systempaths=unconfined")
    script = f"(echo x > /host/{path}) 2>&1"
    done = engine.cli("jaula", "run", "--rm", *flags, busybox, "sh", "-c", script)
    assert any(text in done.stdout for text in ("denied", "not permitted", "nonexistent")), done


def test_a_mapped_bind_is_shown_as_mapped(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    with containers.running(engine, busybox, flags=("-v", f"{tmp_path}:/data")) as name:
        (mount,) = containers.inspect(engine, name)["Mounts"]
        assert mount["IDMapped"] is True
    stopped = engine.cli("jaula", "create", "-v", f"{tmp_path}:/data", busybox).stdout.strip()
    (mount,) = containers.inspect(engine, stopped)["Mounts"]
    assert "IDMapped" not in mount
    engine.cli("jaula", "rm", stopped)
