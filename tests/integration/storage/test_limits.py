"""Disk limits of containers: enforced, or refused if driver or file system cannot do it."""

from __future__ import annotations

import errno
import io
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import loop_mount
from jaula.config import Paths
from jaula.errors import Unsupported
from jaula.kernel import btrfs_ioctl, capabilities, quotactl
from jaula.storage.drivers import project_quota
from jaula.storage.drivers.driver_choice import open_driver
from jaula.storage.drivers.storage_driver import SnapshotDriver, open_root
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.trees import open_directory

Tar = Callable[..., bytes]
MEGA = 1 << 20
CAP_SYS_RESOURCE = 1 << 24
FREE_TIMEOUT = 30.0  # seconds
DISKS = {
    "btrfs": (("mkfs.btrfs", "-q"), ""),
    "ext4": (("mkfs.ext4", "-q", "-O", "quota,project"), "prjquota"),
    "xfs": (("mkfs.xfs", "-q"), "prjquota"),
}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str, str], SnapshotDriver]]:
    """A driver on its own disk, with one layer of 5 MiB."""
    with_disk = []

    def made(kind: str, name: str) -> SnapshotDriver:
        maker, options = DISKS[kind]
        context = loop_mount.mounted(tmp_path, *maker, options=options)
        paths = Paths(context.__enter__() / "root", tmp_path / "run")
        with_disk.append(context)
        return open_driver(name, paths, LayerStore(paths))

    yield made
    for context in with_disk:
        context.__exit__(None, None, None)


def layer(snapshots: SnapshotDriver, tar: Tar) -> tuple[str, ...]:
    layers = snapshots._layers  # type: ignore[attr-defined]
    return (layers.extract(io.BytesIO(tar(("base", os.urandom(5 * MEGA))))).diff_id,)


@contextmanager
def without_leave_to_exceed() -> Iterator[None]:
    """Drop CAP_SYS_RESOURCE, as in a container: with it ext4 lets a process exceed its quota."""
    effective, permitted, inheritable = capabilities.capget()
    capabilities.capset(effective & ~CAP_SYS_RESOURCE, permitted, inheritable)
    try:
        yield
    finally:
        capabilities.capset(effective, permitted, inheritable)


def fill(root: int, name: str, most: int) -> int:
    """Write until an error. Return the bytes written."""
    with without_leave_to_exceed():
        return _fill(root, name, most)


def _fill(root: int, name: str, most: int) -> int:
    written = 0
    try:
        descriptor = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=root)
    except OSError as error:
        return refused(error)
    try:
        while written < most:
            written += os.write(descriptor, os.urandom(MEGA // 4))
            os.fsync(descriptor)
    except OSError as error:
        written += refused(error)
    finally:
        os.close(descriptor)
    return written


def created(root: int, name: str) -> bool:
    """Create an empty file. Return False if the limit does not allow it."""
    try:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=root))
    except OSError as error:
        refused(error)
        return False
    return True


def refused(error: OSError) -> int:
    """No byte was written, because the disk is full."""
    if error.errno not in (errno.EDQUOT, errno.ENOSPC):
        raise error
    return 0


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("btrfs", "btrfs"),
        ("ext4", "overlay"),
        ("ext4", "vfs"),
        ("xfs", "overlay"),
        ("xfs", "vfs"),
    ],
)
def test_a_container_writes_up_to_its_limit(
    make: Callable[[str, str], SnapshotDriver], tar: Tar, kind: str, name: str
) -> None:
    snapshots = make(kind, name)
    image = layer(snapshots, tar)
    snapshots.create("small", image, size=10 * MEGA)
    snapshots.create("other", image, size=20 * MEGA)
    snapshots.create("free", image)
    with open_root(snapshots.root("small")) as root:
        assert 8 * MEGA <= fill(root, "a", 40 * MEGA) <= 10 * MEGA
        assert fill(root, "b", 40 * MEGA) <= MEGA
    with open_root(snapshots.root("other")) as root:
        assert 17 * MEGA <= fill(root, "a", 40 * MEGA) <= 20 * MEGA
    with open_root(snapshots.root("free")) as root:
        assert fill(root, "a", 30 * MEGA) == 30 * MEGA
    snapshots.remove("small")
    assert not snapshots.exists("small")
    snapshots.create("small", image, size=30 * MEGA)
    with open_root(snapshots.root("small")) as root:
        assert fill(root, "a", 20 * MEGA) == 20 * MEGA
    for each in ("small", "other", "free"):
        snapshots.remove(each)


@pytest.mark.parametrize(
    ("kind", "name"), [("ext4", "overlay"), ("ext4", "vfs"), ("xfs", "overlay"), ("xfs", "vfs")]
)
def test_a_container_has_a_project_that_its_removal_frees(
    make: Callable[[str, str], SnapshotDriver],
    tar: Tar,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    name: str,
) -> None:
    """A project with files or a limit is in use, whether the engine knows it or not."""
    snapshots = make(kind, name)
    top = tmp_path / "disk"
    image = layer(snapshots, tar)
    foreign = project_quota._FIRST + 7
    (top / "foreign").mkdir()
    with open_directory(top / "foreign") as directory:
        quotactl.set_project(directory, foreign)
    numbers = [0, 0, 7, 1, 0]
    monkeypatch.setattr(secrets, "randbelow", lambda _: numbers.pop(0))

    def project(id: str) -> int:
        (record,) = (top / "root").rglob(f"{id}/project")
        return int(record.read_text())

    def usage(id: int) -> tuple[int, int, int, int]:
        with open_directory(top) as directory:
            try:
                found = quotactl.get(directory, id)
            except FileNotFoundError:  # xfs has no record of an id without files
                return 0, 0, 0, 0
        return (
            found.dqb_bhardlimit,
            found.dqb_ihardlimit,
            found.dqb_curspace,
            found.dqb_curinodes,
        )

    def becomes_free(id: int) -> bool:
        """Wait: xfs frees removed files in the background."""
        end = time.monotonic() + FREE_TIMEOUT
        while any(usage(id)) and time.monotonic() < end:
            time.sleep(0.05)
        return not any(usage(id))

    snapshots.create("one", image, size=10 * MEGA)
    snapshots.create("two", image, size=20 * MEGA)
    assert numbers == [0]  # 0 was in use by the first container, 7 by another program
    one, two = project("one"), project("two")
    assert [one, two] == [project_quota._FIRST, project_quota._FIRST + 1]
    assert usage(one)[0] < usage(two)[0]
    with open_root(snapshots.root("one")) as root:
        fill(root, "a", 4 * MEGA)
    assert usage(one)[2] >= 4 * MEGA
    snapshots.remove("one")
    assert usage(one)[:2] == (0, 0)
    assert becomes_free(one)
    snapshots.create("three", image, size=5 * MEGA)
    assert project("three") == one
    assert usage(foreign)[3] == 1
    for each in ("two", "three"):
        snapshots.remove(each)
    assert becomes_free(one)
    assert becomes_free(two)


@pytest.mark.parametrize(
    ("kind", "name"), [("ext4", "overlay"), ("xfs", "overlay"), ("xfs", "vfs")]
)
def test_a_container_creates_files_up_to_its_limit(
    make: Callable[[str, str], SnapshotDriver], tar: Tar, kind: str, name: str
) -> None:
    """Empty files take no blocks, but the inodes of the disk."""
    snapshots = make(kind, name)
    snapshots.create("small", layer(snapshots, tar), size=2 * MEGA)
    most = project_quota.inodes_of(2 * MEGA)
    with open_root(snapshots.root("small")) as root, without_leave_to_exceed():
        made = next(n for n in range(2 * most) if not created(root, f"empty{n}"))
    assert most // 2 < made <= most
    snapshots.remove("small")


def test_a_subvolume_created_inside_counts_towards_its_container(
    make: Callable[[str, str], SnapshotDriver], tar: Tar
) -> None:
    snapshots = make("btrfs", "btrfs")
    snapshots.create("c", layer(snapshots, tar), size=5 * MEGA)
    with open_root(snapshots.root("c")) as root:
        btrfs_ioctl.subvol_create(root, "inside")
        inner = os.open("inside", os.O_RDONLY, dir_fd=root)
        assert fill(inner, "a", 40 * MEGA) <= 5 * MEGA
        os.close(inner)
    snapshots.remove("c")
    assert not snapshots.exists("c")


@pytest.mark.parametrize("name", ["overlay", "vfs"])
def test_a_limit_without_project_quota_is_refused_without_leftovers(
    layers: LayerStore, paths: Paths, tar: Tar, name: str
) -> None:
    snapshots = open_driver(name, paths, layers)
    image = (layers.extract(io.BytesIO(tar(("a", "x")))).diff_id,)
    with pytest.raises(Unsupported, match="--storage-opt size= is not possible on") as caught:
        snapshots.create("c", image, size=10 * MEGA)
    assert "prjquota" in str(caught.value)
    assert not snapshots.exists("c")
    assert not list(paths.container("c").glob("*"))
