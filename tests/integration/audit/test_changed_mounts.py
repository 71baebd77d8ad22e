"""A mount that another program changes in a running container fails in the right row.

The container of the module is shared, and each change is undone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import containers
from harness.audits import Audited
from harness.engine import PrivateEngine

IDENTITY = "mount identity"
HIERARCHY = "$(awk '$5 ~ /^.sys.fs.cgroup/ {m = $5} END {print m}' /proc/1/mountinfo)"
"""A mount of the container's cgroup."""


@pytest.fixture(scope="module")
def shared(
    engine: PrivateEngine, busybox: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Audited]:
    """A container with a volume, a tmpfs and a recursive bind."""
    source = tmp_path_factory.mktemp("source")
    (source / "below").mkdir()
    flags = ("-v", f"{source}:/bind", "-v", "/data", "--tmpfs", "/scratch")
    with containers.running(engine, busybox, flags=flags) as name:
        yield Audited(engine, name)


@pytest.mark.parametrize(
    ("command", "undo", "told"),
    [
        ("mount -t tmpfs x /dev/shm", "umount /dev/shm", "/dev/shm is mounted over"),
        ("mount -t tmpfs x /dev/mqueue", "umount /dev/mqueue", "/dev/mqueue is mounted over"),
        ("mount -t tmpfs x /dev/pts", "umount /dev/pts", "/dev/pts is mounted over"),
        ("mount -t tmpfs x /scratch", "umount /scratch", "/scratch is mounted over"),
        ("mount -t tmpfs x /data", "umount /data", "/data is mounted over"),
        ("mount -o bind /etc/group /etc/hosts", "umount /etc/hosts", "/etc/hosts is mounted over"),
        ("mount -o bind /etc/group /etc/resolv.conf", "umount /etc/resolv.conf",
         "/etc/resolv.conf is not"),
        ("mount -o bind /etc/group /etc/hostname", "umount /etc/hostname", "/etc/hostname is not"),
        ("mount -o bind /dev/zero /dev/null", "umount /dev/null", "/dev/null is mounted over"),
        ("mount -o bind,ro /dev/zero /proc/keys", "umount /proc/keys",
         "/proc/keys is mounted over"),
        ("mount -t tmpfs -o ro x /proc/acpi", "umount /proc/acpi", "/proc/acpi is mounted over"),
        ("mount -t tmpfs -o ro x /proc/sys", "umount /proc/sys",
         "/proc/sys is another file system"),
        ("mount -t tmpfs x /sys/fs/cgroup", "umount /sys/fs/cgroup",
         "/sys/fs/cgroup is mounted over"),
        (f"mount -o bind /scratch {HIERARCHY}",
         f"umount {HIERARCHY}",
         "not a hierarchy of the host"),
        ("mount -t tmpfs x /bind/below", "umount /bind/below",
         "/bind/below was mounted below /bind later"),
    ],
)  # fmt: skip
def test_a_changed_mount_fails(shared: Audited, command: str, undo: str, told: str) -> None:
    shared.in_mounts(command)
    try:
        assert told in shared.failing()[IDENTITY]
    finally:
        shared.in_mounts(undo)
    assert shared.failing() == {}, shared.explain()


def test_another_file_system_in_place_of_a_read_only_path_fails(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox) as name:
        container = Audited(engine, name)
        container.in_mounts("umount /proc/sys; mount -t tmpfs -o ro x /proc/sys")
        told = container.failing()
    assert told[IDENTITY] == "/proc/sys is another file system than /proc"


def test_a_process_file_system_of_the_host_fails(engine: PrivateEngine, busybox: str) -> None:
    """Mounted in place of the container's own, with its masks and read-only paths below it."""
    with containers.running(engine, busybox) as name:
        container = Audited(engine, name)
        below = [m.split()[4] for m in container.in_mounts("cat /proc/1/mountinfo").splitlines()]
        masks = [path for path in below if path.startswith("/proc/")]
        container.in_mounts(f"umount {' '.join(masks)} /proc")
        container.attach("/proc", "/proc")
        assert "/proc is the host's proc" in container.failing()[IDENTITY]
