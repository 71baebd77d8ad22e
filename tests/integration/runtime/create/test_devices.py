"""Devices, masks and the cgroup tree of specs that mount no /dev, or another one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from harness import container_runner
from harness.container_runner import ContainerRunner
from jaula.errors import JaulaError
from jaula.spec import runtime_spec

STANDARD = ("null", "zero", "full", "random", "urandom", "tty")


def seen(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner, script: str, **change: object
) -> str:
    """Return the output of a script in a container whose spec is changed before it starts.

    ``drop`` are destinations of mounts to leave out; the rest replaces fields of ``linux``.
    """
    drop = change.pop("drop", ())
    mounts = change.pop("mounts", ())
    terminal = bool(change.pop("terminal", False))
    original = container_runner.make_spec

    def changed(*args: object, **options: object) -> runtime_spec.Spec:
        spec = original(*args, **options)  # type: ignore[arg-type]
        assert spec.linux is not None
        kept = tuple(m for m in spec.mounts if m.destination not in drop)
        linux = msgspec.structs.replace(spec.linux, **change)
        return msgspec.structs.replace(spec, mounts=(*kept, *mounts), linux=linux)

    monkeypatch.setattr(container_runner, "make_spec", changed)
    texts: list[str] = []

    async def scene() -> None:
        box = await runner.start("sh", "-c", script, terminal=terminal)
        texts.append(await box.output())
        await box.ended

    asyncio.run(scene())
    return texts[0]


LIST = (
    "cd /dev; for n in null zero full random urandom tty; do stat -c '%n %F %a %u %t:%T' $n; done"
)


@pytest.mark.parametrize("drop", [(), ("/dev", "/dev/pts")], ids=["tmpfs on /dev", "no /dev"])
def test_the_default_devices_always_exist(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner, drop: tuple[str, ...]
) -> None:
    text = seen(monkeypatch, runner, LIST, drop=drop, devices=())
    numbers = ("1:3", "1:5", "1:7", "1:8", "1:9", "5:0")
    assert text.splitlines() == [
        f"{name} character special file 666 0 {number}"
        for name, number in zip(STANDARD, numbers, strict=True)
    ]


@pytest.mark.parametrize("drop", [(), ("/dev", "/dev/pts")], ids=["tmpfs on /dev", "no /dev"])
def test_default_devices_work_and_links_have_their_targets(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner, drop: tuple[str, ...]
) -> None:
    script = (
        "head -c 2 /dev/zero | od -An -tx1; echo lost > /dev/null; wc -c < /dev/null;"
        "for n in fd stdin stdout stderr ptmx; do readlink /dev/$n; done"
    )
    text = seen(monkeypatch, runner, script, drop=drop)
    assert text.split() == [
        *("00", "00", "0", "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1"),
        *("/proc/self/fd/2", "pts/ptmx"),
    ]


@pytest.mark.parametrize("drop", [(), ("/dev", "/dev/pts")], ids=["tmpfs on /dev", "no /dev"])
def test_listed_devices_have_type_mode_and_owner_wherever_they_are(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner, drop: tuple[str, ...]
) -> None:
    listed = (
        runtime_spec.Device("/dev/null", "c", 1, 3, 0o640, 7, 8),
        runtime_spec.Device("/dev/deep/pipe", "p", file_mode=0o600),
        runtime_spec.Device("/opt/zero", "u", 1, 5, 0o604, 3, 4),
    )
    script = "stat -c '%F %a %u:%g' /dev/null /dev/deep/pipe /opt/zero; head -c 1 /opt/zero | wc -c"
    assert seen(monkeypatch, runner, script, drop=drop, devices=listed).splitlines() == [
        "character special file 640 7:8",
        "fifo 600 0:0",
        "character special file 604 3:4",
        "1",
    ]


def test_a_bind_mounted_dev_keeps_its_nodes(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "only").write_text("")
    bind = runtime_spec.Mount("/dev", str(tmp_path), "bind", ("bind",))
    script = "ls /dev; head -c 10 /proc/keys | wc -c"
    drop = ("/dev", "/dev/pts")
    assert seen(monkeypatch, runner, script, drop=drop, mounts=(bind,)).split() == ["only", "0"]
    assert os.listdir(tmp_path) == ["only"]


def test_changing_a_mask_changes_nothing_of_the_host(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner
) -> None:
    before = os.stat("/dev/null")
    script = "chmod 600 /proc/keys; chmod 600 /dev/null; stat -c %a /dev/null"
    for drop in ((), ("/dev", "/dev/pts")):
        seen(monkeypatch, runner, script, drop=drop)
        after = os.stat("/dev/null")
        assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)


@pytest.mark.parametrize("path", ["/dev/../../etc/node", "dev/node"])
def test_a_device_path_outside_of_the_root_is_refused(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner, path: str
) -> None:
    with pytest.raises(JaulaError, match="path"):
        seen(monkeypatch, runner, "true", devices=(runtime_spec.Device(path, "c", 1, 3),))


def test_missing_masked_and_read_only_paths_are_skipped(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner
) -> None:
    text = seen(
        monkeypatch,
        runner,
        "ls /etc | wc -l; echo x 2>/dev/null > /tmp/x && echo written || echo refused",
        masked_paths=("/no/such", "/bin/sh/below", "/etc"),
        readonly_paths=("/neither", "/tmp"),
    )
    assert text.split() == ["0", "refused"]


def test_a_sysctl_of_the_containers_own_is_written(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner
) -> None:
    text = seen(
        monkeypatch,
        runner,
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        sysctl={"net.ipv4.ip_unprivileged_port_start": "77"},
    )
    assert text == "77\n"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        *((name, "") for name in (None, "private", "rprivate", "slave", "rslave")),
        *((name, "unbindable") for name in ("unbindable", "runbindable")),
        *((name, "shared:") for name in ("shared", "rshared")),
    ],
)
def test_the_roots_propagation_takes_effect(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner, asked: str | None, expected: str
) -> None:
    text = seen(monkeypatch, runner, "cat /proc/self/mountinfo", rootfs_propagation=asked)
    root = next(line for line in text.splitlines() if line.split()[4] == "/")
    assert root.split(" - ")[0].split()[6:] == [] if not expected else expected in root


def test_without_a_cgroup_namespace_the_cgroup_of_the_container_is_visible(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner
) -> None:
    kinds = ("pid", "network", "ipc", "uts", "mount", "user")
    script = "cat $(find /sys/fs/cgroup -name cgroup.procs | grep -v unified | head -n 1)"
    namespaces = tuple(runtime_spec.Namespace(kind) for kind in kinds)
    result = seen(monkeypatch, runner, script, namespaces=namespaces).split()
    assert "1" in result
    assert len(result) <= 4


def test_sysfs_is_the_hosts_read_only_where_the_network_is_the_hosts(
    monkeypatch: pytest.MonkeyPatch, runner: ContainerRunner
) -> None:
    kinds = ("pid", "ipc", "uts", "mount", "user", "cgroup")
    namespaces = tuple(runtime_spec.Namespace(kind) for kind in kinds)
    text = seen(
        monkeypatch,
        runner,
        "test -d /sys/class/net/lo && grep ' /sys ' /proc/self/mountinfo",
        namespaces=namespaces,
        drop=("/sys/fs/cgroup",),
    )
    assert "ro" in text.splitlines()[0].split()[5].split(",")
