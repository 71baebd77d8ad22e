"""config.md "Root", "Mounts", "Annotations"; config-linux.md but namespaces, resources, seccomp."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.containers import mountinfo
from harness.private_runtime import RUNTIME, Config, PrivateRuntime

DEFAULT_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
SECURE = ["nosuid", "noexec", "nodev"]


def with_mounts(runtime: PrivateRuntime, *mounts: Config, **changes: Any) -> Config:
    return {"mounts": [*runtime.config["mounts"], *mounts], **changes}


def at(destination: str, kind: str, *options: str, source: str = "none") -> Config:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


# root


def test_only_a_readonly_root_refuses_a_new_file(runtime: PrivateRuntime) -> None:
    script = "touch /new 2>&1; grep ' / / \\| / ' /proc/self/mountinfo | head -n 1 | cut -d' ' -f6"
    readonly = runtime.bundle({"root": {"readonly": True}}, own_root=True, script=script)
    assert readonly.printed().splitlines()[0] == "touch: /new: Read-only file system"
    assert not (readonly.path / "rootfs/new").exists()
    writable = runtime.bundle({"root": {"readonly": False}}, own_root=True, script=script)
    assert writable.printed().splitlines()[0].split(",")[0] == "rw"
    assert (writable.path / "rootfs/new").exists()


@pytest.mark.parametrize("path", ["rootfs", "./rootfs/", "rootfs/../rootfs"])
def test_the_root_s_path_is_relative_to_the_bundle(runtime: PrivateRuntime, path: str) -> None:
    bundle = runtime.bundle({"root": {"path": path}}, own_root=True, script="cat /mark")
    (bundle.path / "rootfs/mark").write_text(path)
    assert bundle.printed() == path


def test_the_container_is_at_its_root(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        inside = os.stat(f"/proc/{bundle.pid}/root")
        assert (inside.st_dev, inside.st_ino) == (
            runtime.rootfs.stat().st_dev,
            runtime.rootfs.stat().st_ino,
        )
        # nothing of the host's tree is left in the container's mount namespace
        assert {point.split("/")[1] for point in mountinfo(bundle.pid)} <= {
            "",
            "proc",
            "dev",
            "sys",
        }


# mounts


def test_mounts_are_made_in_order_with_their_options(
    runtime: PrivateRuntime, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("content")
    changes = with_mounts(
        runtime,
        at("/tmp", "tmpfs", *SECURE, "size=1m", "mode=1770"),
        at("/tmp/a", "tmpfs", "ro", "relatime"),
        at("/etc", "none", "bind", "ro", source=str(tmp_path)),
        at("/tmp/b/c", "bind", "rbind", "rw", source=str(tmp_path / "file")),
    )
    with runtime.started(changes) as bundle:
        result = mountinfo(bundle.pid)
        assert {"nosuid", "noexec", "nodev", "rw"} <= result["/tmp"].options
        assert {"size=1024k", "mode=1770"} <= set(result["/tmp"].super_options)
        assert "ro" in result["/tmp/a"].options
        assert "ro" in result["/etc"].options
        assert result["/etc"].root.endswith(str(tmp_path).rpartition("/")[2])
        assert "rw" in result["/tmp/b/c"].options
        assert bundle.inside("cat /etc/file /tmp/b/c") == "contentcontent"
        assert not any("shared:" in word for m in result.values() for word in m.propagation)


def test_the_standard_file_systems_belong_to_the_container(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        result = mountinfo(bundle.pid)
        kinds = {point: result[point].fstype for point in result}
        assert kinds["/proc"] == "proc"
        assert kinds["/dev"] == kinds["/dev/shm"] == "tmpfs"
        assert kinds["/dev/pts"] == "devpts"
        assert kinds["/dev/mqueue"] == "mqueue"
        assert kinds["/sys"] == "sysfs"
        assert "ro" in result["/sys"].options
        assert bundle.inside("echo /proc/[0-9]*").split()[0] == "/proc/1"


def test_a_mount_that_fails_is_named_in_one_line(runtime: PrivateRuntime) -> None:
    for mount, text in (
        (at("/x", "bind", "bind", source="/nonexistent"), "/nonexistent"),
        (at("/tmp", "notafs"), "notafs"),
        (at("/tmp", "tmpfs", "size=much"), "/tmp"),
    ):
        assert text in runtime.bundle(with_mounts(runtime, mount)).refused()


# annotations


def test_annotations_are_in_the_state(runtime: PrivateRuntime) -> None:
    annotations = {"org.example.a": "1", "ü": 'quo"te\n', "empty": ""}
    with runtime.created({"annotations": annotations}) as bundle:
        assert bundle.state()["annotations"] == annotations


# devices


def test_default_devices_exist(runtime: PrivateRuntime) -> None:
    with runtime.started() as bundle:
        for name, (major, minor) in DEFAULT_DEVICES.items():
            facts = bundle.inside(f"stat -c '%F %t,%T %a' /dev/{name}").strip()
            assert facts == f"character special file {major:x},{minor:x} 666", name
        links = bundle.inside(
            "cd /dev; for x in fd stdin stdout stderr ptmx; do readlink $x; done"
        ).split()
        assert links == [
            "/proc/self/fd",
            "/proc/self/fd/0",
            "/proc/self/fd/1",
            "/proc/self/fd/2",
            "pts/ptmx",
        ]
        assert (
            bundle.inside("echo x > /dev/null; head -c 3 /dev/zero | od -An -tx1").split()
            == ["00"] * 3
        )


def test_additional_devices_have_their_numbers_owner_and_mode(runtime: PrivateRuntime) -> None:
    devices = [
        {"path": "/dev/fuse0", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640},
        {"path": "/dev/deep/down", "type": "b", "major": 7, "minor": 99, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o604},
        {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5, "fileMode": 0o600},
    ]
    script = "stat -c '%F %t,%T %a %u:%g' /dev/fuse0 /dev/deep/down /dev/pipe /dev/unbuffered"
    lines = runtime.bundle({"linux": {"devices": devices}}, script=script).printed().splitlines()
    assert lines[0] == "character special file a,e5 640 0:0"
    assert lines[1].startswith("block special file 7,63 ")
    assert lines[1].endswith(" 3:4")
    assert lines[2] == "fifo 0,0 604 0:0"
    assert lines[3] == "character special file 1,5 600 0:0"


def test_a_device_of_a_rule_may_be_used_and_another_not(runtime: PrivateRuntime) -> None:
    devices = [{"path": "/dev/own", "type": "c", "major": 10, "minor": 229}]
    script = "dd if=/dev/own bs=1 count=0 2>&1 | head -n 1"
    denied = runtime.bundle({"linux": {"devices": devices}}, script=script).printed()
    assert "Operation not permitted" in denied
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"},
    ]
    changes = {"linux": {"devices": devices, "resources": {"devices": rules}}}
    assert "not permitted" not in runtime.bundle(changes, script=script).printed()


# sealing


def test_masked_paths_show_nothing(runtime: PrivateRuntime) -> None:
    linux = {"maskedPaths": ["/proc/uptime", "/sys/kernel", "/nonexistent", "/etc/secret"]}
    script = "wc -c < /proc/uptime; ls /sys/kernel | wc -l; wc -c < /etc/secret; "
    script += "touch /sys/kernel/x 2>&1; true"
    bundle = runtime.bundle({"linux": linux}, own_root=True, script=script)
    (bundle.path / "rootfs/etc/secret").write_text("secret")
    lines = bundle.printed().split("\n")
    assert lines[:3] == ["0", "0", "0"]
    assert "Read-only" in lines[3]


def test_read_only_paths_refuse_writes(runtime: PrivateRuntime) -> None:
    linux = {"readonlyPaths": ["/proc/sys", "/etc", "/nonexistent", "/etc/hosts"]}
    script = "echo x 2>&1 > /proc/sys/kernel/hostname; touch /etc/x 2>&1; touch /tmp/x && echo fine"
    changes = {"linux": linux, "root": {"readonly": False}}
    bundle = runtime.bundle(changes, own_root=True, script=script)
    (bundle.path / "rootfs/etc/hosts").touch()
    with runtime.started(changes, own_root=True) as other:
        assert "ro" in mountinfo(other.pid)["/etc"].options
        assert "ro" in mountinfo(other.pid)["/proc/sys"].options
    printed = bundle.run().stdout
    assert "touch: /etc/x: Read-only file system" in printed
    assert printed.endswith("fine\n")


def test_sysctls_of_namespaces_are_set_in_them_alone(runtime: PrivateRuntime) -> None:
    here = {
        name: Path(f"/proc/sys/{name}").read_text()
        for name in ("net/ipv4/ip_forward", "kernel/msgmax", "fs/mqueue/msg_max")
    }
    expected = {
        "net.ipv4.ip_forward": "1",
        "net/ipv4/ping_group_range": "0 7",
        "kernel.msgmax": "5000",
        "kernel.shm_rmid_forced": "1",
        "fs.mqueue.msg_max": "33",
        "kernel.domainname": "here",
    }
    script = "cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ping_group_range kernel/msgmax"
    script += " kernel/shm_rmid_forced fs/mqueue/msg_max kernel/domainname"
    printed = runtime.bundle({"linux": {"sysctl": expected}}, script=script).printed()
    assert printed.split() == ["1", "0", "7", "5000", "1", "33", "here"]
    assert here == {name: Path(f"/proc/sys/{name}").read_text() for name in here}


@pytest.mark.parametrize(
    ("sysctl", "text"),
    [
        ({"vm.swappiness": "1"}, "'vm.swappiness' does not belong to a namespace"),
        ({"kernel.hostname": "x"}, "must be set by the field hostname"),
        ({"net.ipv4.nonsense": "1"}, "net.ipv4.nonsense"),
        ({"net.ipv4.ip_forward": "many"}, "net.ipv4.ip_forward"),
        ({"../../etc/passwd": "1"}, "does not belong to a namespace"),
    ],
)
def test_an_invalid_sysctl_is_refused(runtime: PrivateRuntime, sysctl: Config, text: str) -> None:
    assert text in runtime.bundle({"linux": {"sysctl": sysctl}}).refused().replace(
        "/", "."
    ).replace("......etc.passwd", "../../etc/passwd")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names of x86")
def test_personality(runtime: PrivateRuntime) -> None:
    changes = {"linux": {"personality": {"domain": "LINUX32"}}}
    assert runtime.bundle(changes, script="uname -m").printed() == "i686\n"
    changes = {"linux": {"personality": {"domain": "LINUX"}}}
    assert runtime.bundle(changes, script="uname -m").printed() == "x86_64\n"
    with runtime.started({"linux": {"personality": {"domain": "LINUX32"}}}) as bundle:
        assert bundle.inside("uname -m") == "i686\n"
        assert int(bundle.proc("personality"), 16) & 0xFF == 8


def test_a_mount_label_is_ignored_without_selinux(runtime: PrivateRuntime) -> None:
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("SELinux is in force here")
    changes = {"linux": {"mountLabel": "system_u:object_r:container_file_t:s0"}}
    assert runtime.bundle(changes, script="echo fine").printed() == "fine\n"


def test_intel_rdt_is_refused(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle({"linux": {"intelRdt": {"closID": "x"}}})
    assert bundle.refused() == "linux.intelRdt: intel rdt is not supported by this runtime"


# propagation

PROPAGATION = """
import json, os, subprocess, sys
runtime, root, bundle, name, source = sys.argv[1:]
os.unshare(os.CLONE_NEWNS)
subprocess.run(["mount", "--make-rshared", "/"], check=True)
def run(*words):
    subprocess.run([runtime, "--root", root, *words], check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=sys.stderr)
run("run", "-d", "--bundle", bundle, "--pid-file", bundle + "/pid", name)
pid = open(bundle + "/pid").read()
found = {}
for line in open(f"/proc/{pid}/mountinfo"):
    before = line.split(" - ")[0].split()
    found[before[4]] = [word.split(":")[0] for word in before[6:]]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source + "/late"], check=True)
seen = any(line.split()[4] == "/data/late" for line in open(f"/proc/{pid}/mountinfo"))
run("delete", "--force", name)
json.dump({"root": found["/"], "data": found["/data"], "late": seen}, sys.stdout)
"""


@pytest.mark.parametrize(
    ("rootfs", "option", "root", "data", "late"),
    [
        (None, None, [], [], False),
        ("private", "rprivate", [], [], False),
        ("rslave", "rslave", ["master"], ["master"], True),
        ("slave", "rprivate", ["master"], [], False),
        ("rshared", "rshared", ["shared"], ["shared"], True),
        ("unbindable", None, ["unbindable"], [], False),
    ],
)
def test_propagation(
    runtime: PrivateRuntime,
    tmp_path: Path,
    rootfs: str | None,
    option: str | None,
    root: list[str],
    data: list[str],
    late: bool,
) -> None:
    (tmp_path / "late").mkdir()
    mount = at("/data", "bind", "rbind", *([option] if option else []), source=str(tmp_path))
    bundle = runtime.bundle(
        with_mounts(runtime, mount, linux={"rootfsPropagation": rootfs}), own_root=True
    )
    (bundle.path / "rootfs/data").mkdir()
    words = [str(RUNTIME), str(runtime.root), str(bundle.path), bundle.id]
    done = subprocess.run(
        [sys.executable, "-c", PROPAGATION, *words, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(root) <= set(result["root"])
    assert bool(root) == bool(result["root"])
    assert set(data) <= set(result["data"])
    assert bool(data) == bool(result["data"])
    assert result["late"] is late


def test_no_device_node_is_left_on_disk(runtime: PrivateRuntime) -> None:
    """The root on disk stays as it was: no node, link or file of ours is left in it."""
    bundle = runtime.bundle({"root": {"readonly": False}}, own_root=True, script="true")
    bundle.printed()
    dev = bundle.path / "rootfs/dev"
    assert not [entry for entry in dev.iterdir() if not stat.S_ISDIR(entry.lstat().st_mode)]


def test_a_bind_s_source_may_be_on_an_earlier_mount(runtime: PrivateRuntime) -> None:
    bundle = runtime.bundle(own_root=True, script="touch /tmp/x; ls /late; cat /proc/mounts")
    bundle.config["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/late", "type": "bind", "source": "rootfs/tmp", "options": ["nodev"]},
    ]
    bundle.write()
    printed = bundle.printed()
    assert printed.startswith("x\n")
    assert re.search(r"^tmpfs /late tmpfs rw,nodev,relatime[, ]", printed, re.MULTILINE)


@pytest.mark.parametrize("locked", [False, True])
def test_a_bind_that_names_a_flag_has_no_other_unless_it_is_locked(
    runtime: PrivateRuntime, tmp_path: Path, locked: bool
) -> None:
    """A flag is locked for the mount namespaces of other users (mount_namespaces(7))."""
    source = tmp_path / "source"
    source.mkdir()
    mount = {"destination": "/tmp", "type": "bind", "source": str(source), "options": ["nodev"]}
    bundle = runtime.bundle(
        {"mounts": [*runtime.config["mounts"], mount]}, script="grep ' /tmp ' /proc/self/mountinfo"
    )
    setup = f"mount -t tmpfs -o ro,nosuid,noexec none {source} && exec "
    words = " ".join(bundle.words("run"))
    if locked:
        namespaces = [*bundle.config["linux"]["namespaces"], {"type": "user"}]
        rows = [{"containerID": 0, "hostID": 0, "size": 1000}]
        bundle.config["linux"] |= {
            "namespaces": namespaces,
            "uidMappings": rows,
            "gidMappings": rows,
            "resources": None,
        }
        bundle.config["linux"]["namespaces"] = [
            entry for entry in namespaces if entry["type"] not in ("network", "cgroup")
        ]
        bundle.config["mounts"] = [
            entry for entry in bundle.config["mounts"] if entry["type"] not in ("cgroup", "sysfs")
        ]
        bundle.write()
        setup += "unshare -U --map-users=0,0,1000 --map-groups=0,0,1000 -m "
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", setup + words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    options = done.stdout.split()[5].split(",")
    assert [flag in options for flag in ("ro", "nosuid", "noexec")] == [locked] * 3
    assert "nodev" in options
