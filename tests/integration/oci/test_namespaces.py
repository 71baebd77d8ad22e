"""config-linux.md "Namespaces", "User namespace mappings", "Time Offsets": made and joined."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.containers import eventually, status
from harness.host_mounts import host_mounts
from harness.private_runtime import Config, PrivateRuntime

# type in the document: name in /proc/PID/ns
KINDS = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "user": "user",
    "time": "time",
}
PLAIN = ("pid", "network", "mount", "ipc", "uts", "cgroup")
MAPPED = {
    "uidMappings": [{"containerID": 0, "hostID": 1_700_000_000, "size": 1000}],
    "gidMappings": [
        {"containerID": 0, "hostID": 1_700_100_000, "size": 5},
        {"containerID": 5, "hostID": 1_700_200_000, "size": 995},
    ],
}


def namespaces(*kinds: str, **paths: str) -> list[Config]:
    return [{"type": kind} | ({"path": paths[kind]} if kind in paths else {}) for kind in kinds]


def identity(pid: int | str, kind: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{KINDS[kind]}")


@contextlib.contextmanager
def holder(*words: str) -> Iterator[int]:
    """A process of ``unshare`` that sleeps; its pid."""
    unshare = subprocess.Popen(["unshare", *words, "sleep", "100"])
    try:
        comm = Path(f"/proc/{unshare.pid}/comm")
        eventually(lambda: comm.read_text() == "sleep\n", "unshare executes")
        yield unshare.pid
    finally:
        unshare.kill()
        unshare.wait()


@pytest.mark.parametrize("kind", [*PLAIN, "time", "user"])
def test_a_requested_namespace_is_a_new_one(runtime: PrivateRuntime, kind: str) -> None:
    kinds = {*PLAIN, kind} if kind == "user" else {"mount", "pid", kind}
    linux: Config = {"namespaces": namespaces(*kinds)} | (MAPPED if kind == "user" else {})
    changes: Config = {"linux": linux}
    if "uts" not in kinds:
        changes["hostname"] = None
    if kind != "user":
        changes["mounts"] = [runtime.config["mounts"][0]]
    with runtime.started(changes) as bundle:
        assert identity(bundle.pid, kind) != identity("self", kind)
        for other in KINDS.keys() - kinds - {"time"}:
            assert identity(bundle.pid, other) == identity("self", other), other


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("network", ("--net",)),
        ("ipc", ("--ipc",)),
        ("uts", ("--uts",)),
        ("cgroup", ("--cgroup",)),
        ("time", ("--time", "--fork", "--kill-child")),
    ],
)
def test_a_namespace_with_a_path_is_joined(
    runtime: PrivateRuntime, kind: str, flags: tuple[str, ...]
) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "time":
            first = stack.enter_context(
                runtime.started({"linux": {"namespaces": namespaces(*PLAIN, "time")}})
            )
            pid = first.pid
        else:
            pid = stack.enter_context(holder(*flags))
        path = f"/proc/{pid}/ns/{KINDS[kind]}"
        kinds = dict.fromkeys((*PLAIN, kind))
        changes: Config = {"linux": {"namespaces": namespaces(*kinds, **{kind: path})}}
        if kind == "uts":
            changes["hostname"] = None
        bundle = stack.enter_context(runtime.started(changes))
        assert identity(bundle.pid, kind) == identity(pid, kind) != identity("self", kind)
        other = next(k for k in ("ipc", "uts") if k != kind)
        assert identity(bundle.pid, other) != identity(pid, other)
        assert bundle.inside(f"readlink /proc/self/ns/{KINDS[kind]}").strip() == identity(pid, kind)


def test_a_network_namespace_that_is_bound_to_a_file_is_joined(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    place = tmp_path / "netns"
    place.touch()
    with holder("--net") as pid:
        subprocess.run(["mount", "--bind", f"/proc/{pid}/ns/net", place], check=True)
    try:
        subprocess.run(
            [
                "nsenter",
                f"--net={place}",
                "ip",
                "link",
                "add",
                "jlt0",
                "type",
                "veth",
                "peer",
                "jlt1",
            ],
            check=True,
        )
        linux = {"namespaces": namespaces(*PLAIN, network=str(place))}
        printed = runtime.bundle({"linux": linux}, script="ls /sys/class/net").printed()
        assert "jlt0" in printed.split()
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_pid_namespace_is_shared_with_another_container(runtime: PrivateRuntime) -> None:
    with runtime.started() as first:
        path = f"/proc/{first.pid}/ns/pid"
        with runtime.started({"linux": {"namespaces": namespaces(*PLAIN, pid=path)}}) as second:
            assert identity(second.pid, "pid") == identity(first.pid, "pid")
            inside = status(second.pid)["NSpid"].split()
            assert inside == [str(second.pid), inside[1]]
            assert inside[1] != "1"
            assert inside[1] in second.inside("echo /proc/[0-9]*").replace("/proc/", "").split()


def test_a_mount_namespace_with_a_path_is_entered(runtime: PrivateRuntime) -> None:
    with runtime.started() as first:
        paths = namespaces(*PLAIN, mount=f"/proc/{first.pid}/ns/mnt")
        changes: Config = {
            "linux": {"namespaces": paths, "maskedPaths": [], "readonlyPaths": []},
            "mounts": [],
        }
        with runtime.started(changes) as second:
            assert identity(second.pid, "mount") == identity(first.pid, "mount")
            assert identity(second.pid, "pid") != identity(first.pid, "pid")
            assert os.stat(f"/proc/{second.pid}/root").st_ino == os.stat(runtime.rootfs).st_ino


def test_a_pid_namespace_s_first_process_is_number_1(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        assert status(bundle.pid)["NSpid"].split() == [str(bundle.pid), "1"]


def test_without_a_pid_namespace_the_pids_of_the_host_are_visible(runtime: PrivateRuntime) -> None:
    kinds = [kind for kind in PLAIN if kind != "pid"]
    with runtime.started({"linux": {"namespaces": namespaces(*kinds)}}) as bundle:
        assert status(bundle.pid)["NSpid"].split() == [str(bundle.pid)]


def test_a_network_namespace_has_only_its_loopback_interface(runtime: PrivateRuntime) -> None:
    printed = runtime.bundle(script="ls /sys/class/net; cat /proc/net/route | wc -l").printed()
    assert "lo" in printed.split()
    assert "eth0" not in printed.split()


def test_hostname_and_domainname(runtime: PrivateRuntime) -> None:
    changes = {"hostname": "höst-1", "domainname": "example.org"}
    script = "hostname; cat /proc/sys/kernel/domainname"
    assert runtime.bundle(changes, script=script).printed() == "höst-1\nexample.org\n"
    assert os.uname().nodename != "höst-1"


@pytest.mark.parametrize("field", ["hostname", "domainname"])
def test_a_name_needs_a_uts_namespace(runtime: PrivateRuntime, field: str) -> None:
    kinds = [kind for kind in PLAIN if kind != "uts"]
    changes = {"hostname": None, "linux": {"namespaces": namespaces(*kinds)}} | {field: "x"}
    assert "namespace of type 'uts'" in runtime.bundle(changes).refused()


def test_mappings_are_the_kernel_s(runtime: PrivateRuntime) -> None:
    linux: Config = {"namespaces": namespaces(*PLAIN, "user"), **MAPPED}
    process = {"user": {"uid": 7, "gid": 7, "additionalGids": [3, 8]}}
    with runtime.started({"linux": linux, "process": process}) as bundle:
        assert [line.split() for line in bundle.proc("uid_map").splitlines()] == [
            ["0", "1700000000", "1000"]
        ]
        assert [line.split() for line in bundle.proc("gid_map").splitlines()] == [
            ["0", "1700100000", "5"],
            ["5", "1700200000", "995"],
        ]
        facts = status(bundle.pid)
        assert facts["Uid"].split() == ["1700000007"] * 4
        assert facts["Gid"].split() == ["1700200002"] * 4
        assert facts["Groups"] == "1700100003 1700200003"
        assert bundle.inside("id -u; id -g").split() == ["7", "7"]
        # mounts belong to the container's root
        assert bundle.inside("stat -c %u:%g /dev /dev/shm").split() == ["0:0", "0:0"]


def test_a_user_namespace_with_a_path_is_joined_with_its_mappings(runtime: PrivateRuntime) -> None:
    linux: Config = {"namespaces": namespaces(*PLAIN, "user"), **MAPPED}
    with runtime.started({"linux": linux}) as first:
        path = f"/proc/{first.pid}/ns/user"
        joined: Config = {"namespaces": namespaces(*PLAIN, "user", user=path)}
        with runtime.started({"linux": joined}) as second:
            assert identity(second.pid, "user") == identity(first.pid, "user")
            assert second.proc("uid_map") == first.proc("uid_map")
            assert status(second.pid)["Uid"].split() == ["1700000000"] * 4
            assert second.inside("id -u; cat /proc/self/uid_map").split()[:3] == [
                "0",
                "0",
                "1700000000",
            ]


def test_every_namespace_of_another_container_can_be_joined(runtime: PrivateRuntime) -> None:
    linux: Config = {"namespaces": namespaces(*PLAIN, "user", "time"), **MAPPED}
    with runtime.started({"linux": linux}) as first:
        shared = [kind for kind in KINDS if kind != "mount"]
        paths = {kind: f"/proc/{first.pid}/ns/{KINDS[kind]}" for kind in shared}
        changes: Config = {
            "linux": {"namespaces": namespaces(*shared, "mount", **paths)},
            "hostname": None,
        }
        with runtime.started(changes) as second:
            for kind in shared:
                assert identity(second.pid, kind) == identity(first.pid, kind), kind
            assert identity(second.pid, "mount") != identity(first.pid, "mount")


def test_time_offsets_are_read_back_from_the_kernel(runtime: PrivateRuntime) -> None:
    offsets = {
        "monotonic": {"secs": 1000, "nanosecs": 5},
        "boottime": {"secs": 86400 * 1000, "nanosecs": 7},
    }
    linux = {"namespaces": namespaces(*PLAIN, "time"), "timeOffsets": offsets}
    with runtime.started({"linux": linux}) as bundle:
        result = [line.split() for line in bundle.proc("timens_offsets").splitlines()]
        assert result == [["monotonic", "1000", "5"], ["boottime", "86400000", "7"]]
        uptime = float(bundle.inside("cut -d. -f1 /proc/uptime"))
        assert uptime >= 86400 * 1000
        assert identity(bundle.pid, "time") != identity("self", "time")


def test_a_cgroup_namespace_has_the_container_s_cgroup_as_its_root(runtime: PrivateRuntime) -> None:
    script = "cut -d: -f3 /proc/self/cgroup | sort -u"
    assert runtime.bundle(script=script).printed() == "/\n"
    kinds = [kind for kind in PLAIN if kind != "cgroup"]
    bundle = runtime.bundle({"linux": {"namespaces": namespaces(*kinds)}}, script=script)
    assert f"/{runtime.cgroup}/{bundle.id}" in bundle.printed().split()


def test_without_a_mount_namespace_the_host_s_mounts_stay_unchanged(
    runtime: PrivateRuntime,
) -> None:
    kinds = [kind for kind in PLAIN if kind != "mount"]
    before = host_mounts(runtime.base)
    with runtime.started({"linux": {"namespaces": namespaces(*kinds)}}) as bundle:
        assert {"/", "/proc", "/dev"} <= set(bundle.inside("cut -d' ' -f2 /proc/mounts").split())
        assert host_mounts(runtime.base) == before


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"namespaces": [{"type": "mount"}, {"type": "moon"}]},
            "'moon' must be one of pid, network",
        ),
        ({"namespaces": namespaces(*PLAIN, "pid")}, "'pid' is specified twice"),
        ({"namespaces": namespaces(*PLAIN, ipc="proc/1/ns/ipc")}, "is not an absolute path"),
        ({"namespaces": namespaces(*PLAIN, ipc="/nonexistent")}, "/nonexistent: "),
        ({"namespaces": namespaces(*PLAIN, ipc="/proc/self/ns/uts")}, "is of type 'uts'"),
        ({"namespaces": namespaces(*PLAIN, ipc="/dev/null")}, "/dev/null: not a namespace"),
        ({"namespaces": namespaces(*PLAIN, ipc="/etc")}, "/etc: not a namespace"),
        (MAPPED, "requires a namespace of type 'user'"),
        ({"namespaces": namespaces(*PLAIN, "user")}, "needs a mapping"),
        (
            {"namespaces": namespaces(*PLAIN), "timeOffsets": {"monotonic": {"secs": 1}}},
            "linux.timeOffsets",
        ),
        (
            {"namespaces": namespaces(*PLAIN, "time"), "timeOffsets": {"realtime": {"secs": 1}}},
            "'realtime'",
        ),
        (
            {
                "namespaces": namespaces(*PLAIN, "time"),
                "timeOffsets": {"boottime": {"secs": -(10**9)}},
            },
            "",
        ),
    ],
)
def test_an_invalid_spec_is_refused_in_one_line(
    runtime: PrivateRuntime, changes: Config, text: str
) -> None:
    assert text in runtime.bundle({"linux": changes}).refused()
