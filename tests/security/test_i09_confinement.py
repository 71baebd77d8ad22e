"""I9: user namespace, no_new_privs, seccomp, cgroup namespace and propagation are in effect."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine


@pytest.mark.parametrize("cve", ["CVE-2022-0492 CVE-2022-0185"])
def test_the_user_namespace_maps_a_range_and_not_root(
    engine: PrivateEngine, plain: str, cve: str
) -> None:
    process = containers.pid(engine, plain)
    for kind in ("uid_map", "gid_map"):
        lines = Path(f"/proc/{process}/{kind}").read_text().splitlines()
        assert len(lines) == 1
        inside, outside, size = (int(word) for word in lines[0].split())
        assert (inside, size) == (0, 65536)
        assert outside >= 65536


@pytest.mark.skipif(not os.path.exists("/proc/self/ns/time"), reason="no time namespaces")
@pytest.mark.parametrize("flags", [(), ("--userns", "host"), ("--network", "host")])
def test_the_time_namespace_is_its_own_and_an_exec_enters_it(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, flags=flags) as name:
        own = os.readlink(f"/proc/{containers.pid(engine, name)}/ns/time")
        entered = engine.cli("jaula", "exec", name, "readlink", "/proc/self/ns/time").stdout
        rows = engine.cli("jaula", "verify", name).stdout.splitlines()
    assert own != os.readlink("/proc/self/ns/time")
    assert entered.strip() == own
    assert [row for row in rows if "namespace time" in row and row.endswith("holds")]


def test_no_new_privileges_is_in_effect_on_request(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--security-opt", "no-new-privileges")
    with containers.running(engine, busybox, flags=flags) as name:
        assert containers.status(containers.pid(engine, name))["NoNewPrivs"] == "1"
        output = engine.cli("jaula", "exec", name, "cat", "/proc/self/status").stdout
        assert "NoNewPrivs:\t1" in output


@pytest.mark.parametrize("words", [(), ("-u", "1000"), ("-t",)])
def test_seccomp_filters_the_program_and_every_exec(
    engine: PrivateEngine, plain: str, words: tuple[str, ...]
) -> None:
    assert containers.status(containers.pid(engine, plain))["Seccomp"] == "2"
    output = engine.cli("jaula", "exec", *words, plain, "cat", "/proc/self/status").stdout
    assert "Seccomp:\t2" in output


@pytest.mark.parametrize("cve", ["CVE-2022-0185"])
@pytest.mark.parametrize("flag", ["-U", "-m", "-n"])
def test_no_namespace_can_be_created_inside(
    engine: PrivateEngine, plain: str, cve: str, flag: str
) -> None:
    done = engine.cli("jaula", "exec", plain, "unshare", flag, "true")
    assert done.returncode != 0
    assert "not permitted" in done.stderr.lower() + done.stdout.lower()


@pytest.mark.parametrize("cve", ["CVE-2022-0492"])
def test_no_cgroup_hierarchy_can_be_mounted_or_written(
    engine: PrivateEngine, plain: str, cve: str
) -> None:
    mount = "mkdir -p /tmp/cg && mount -t cgroup -o rdma none /tmp/cg"
    assert engine.cli("jaula", "exec", plain, "sh", "-c", mount).returncode != 0
    write = "find /sys/fs/cgroup -name release_agent -o -name cgroup.procs | while read f; do"
    write += ' (echo 1 > "$f") 2>/dev/null && echo "$f"; done; true'
    assert engine.cli("jaula", "exec", plain, "sh", "-c", write).stdout == ""


@pytest.mark.parametrize("cve", ["CVE-2023-25809"])
def test_the_cgroup_tree_is_private_and_read_only(
    engine: PrivateEngine, plain: str, cve: str
) -> None:
    process = containers.pid(engine, plain)
    assert os.readlink(f"/proc/{process}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
    output = engine.cli("jaula", "exec", plain, "cat", "/proc/1/cgroup").stdout
    assert engine.cgroup_parent not in output
    for path, mount in containers.mountinfo(process).items():
        if path.startswith("/sys/fs/cgroup"):
            assert "ro" in mount.options, path


def test_no_mount_propagates_to_or_from_the_host(engine: PrivateEngine, plain: str) -> None:
    for path, mount in containers.mountinfo(containers.pid(engine, plain)).items():
        assert mount.propagation == (), f"{path}: {mount.propagation}"


def test_nothing_can_be_mounted_from_inside(engine: PrivateEngine, plain: str) -> None:
    for words in (("-t", "tmpfs", "none", "/tmp"), ("-o", "remount,rw", "/sys")):
        assert engine.cli("jaula", "exec", plain, "mount", *words).returncode != 0
