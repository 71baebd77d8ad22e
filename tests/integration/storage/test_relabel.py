"""Relabel a tree with hostile content."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest, Unavailable
from jaula.kernel import mounts
from jaula.storage.relabel import ATTRIBUTE, relabel

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def label(path: Path) -> str | None:
    try:
        return os.getxattr(path, ATTRIBUTE, follow_symlinks=False).rstrip(b"\0").decode()
    except OSError:
        return None


def run(top: Path, **limits: int) -> int:
    fd = os.open(top, os.O_PATH)
    try:
        return relabel(fd, LABEL, **limits)
    finally:
        os.close(fd)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").write_text("x")
    (top / "a" / "b" / "file").write_text("x")
    return top


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A tree that must not be labelled."""
    place = tmp_path / "outside"
    (place / "below").mkdir(parents=True)
    (place / "secret").write_text("x")
    yield place
    assert [p for p in (place, *place.rglob("*")) if label(p) is not None] == []


def test_everything_is_labelled_once(tree: Path) -> None:
    assert run(tree) == 5
    assert {label(p) for p in (tree, *tree.rglob("*"))} == {LABEL}
    assert run(tree) == 0


def test_a_file_can_be_labelled_by_itself(tree: Path) -> None:
    assert run(tree / "a" / "file") == 1
    assert label(tree / "a") is None


def test_no_link_is_followed(tree: Path, outside: Path) -> None:
    (tree / "link").symlink_to(outside / "secret")
    (tree / "directory").symlink_to(outside)
    (tree / "a" / "up").symlink_to("../../outside")
    (tree / "proc").symlink_to("/proc/self/root")
    run(tree)
    assert label(tree / "link") == label(tree / "directory") == LABEL


def test_nothing_but_directories_is_opened(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "device", stat.S_IFCHR | 0o600, os.makedev(4, 200))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "socket"))
        run(tree)
    assert {label(tree / name) for name in ("fifo", "device", "socket")} == {LABEL}


def test_another_mount_is_not_entered(tree: Path, outside: Path) -> None:
    (tree / "mount").mkdir()
    mounts.mount(str(outside), str(tree / "mount"), None, mounts.MS.BIND)
    try:
        run(tree)
        assert label(tree / "a" / "b" / "file") == LABEL
    finally:
        mounts.umount2(str(tree / "mount"))


def test_a_deep_or_endless_tree_is_refused(tree: Path) -> None:
    with pytest.raises(InvalidRequest, match="levels deep"):
        run(tree, depth=2)
    with pytest.raises(InvalidRequest, match="more than 3 files"):
        run(tree, entries=3)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InvalidRequest):
        run(tree, depth=1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unsupported_label_is_an_error(tree: Path) -> None:
    mounts.mount(str(tree), str(tree), None, mounts.MS.BIND)
    try:
        flags = mounts.MS.REMOUNT | mounts.MS.BIND | mounts.MS.RDONLY
        mounts.mount(None, str(tree), None, flags)
        with pytest.raises(Unavailable, match="cannot set the label"):
            run(tree)
    finally:
        mounts.umount2(str(tree))


def test_a_renamed_directory_does_not_lead_outside(tree: Path, outside: Path) -> None:
    """A container swaps a directory and a link to a host directory during the walk."""
    (tree / "x").mkdir()
    (tree / "x" / "file").write_text("x")
    (tree / "y").symlink_to(outside)
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            os.rename(tree / "x", tree / "z")
            os.rename(tree / "y", tree / "x")
            os.rename(tree / "x", tree / "y")
            os.rename(tree / "z", tree / "x")

    worker = threading.Thread(target=swap)
    worker.start()
    try:
        for _ in range(300):
            run(tree)
    finally:
        ended.set()
        worker.join()
