"""A copy in two steps equals the tree at the second one, whatever changed between them."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.storage.compare import compare_trees
from jaula.storage.tree_copy import TreeCopy
from jaula.storage.trees import open_directory


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree that has not changed for a while."""
    top = tmp_path / "tree"
    (top / "a/b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (top / name).write_bytes(name.encode() * 10_000)
    os.link(top / "one", top / "a/linked")
    (top / "symlink").symlink_to("one")
    os.mkfifo(top / "fifo")
    os.chown(top / "a/two", 1000, 1000)
    time.sleep(0.3)
    return top


def stored(top: Path) -> None:
    with (top / "one").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:3] = b"NEW"


def touched(top: Path) -> None:
    status = (top / "a/two").stat()
    (top / "a/two").write_bytes(b"TWO" + (top / "a/two").read_bytes()[3:])
    os.utime(top / "a/two", ns=(status.st_atime_ns, status.st_mtime_ns))


def moved(top: Path) -> None:
    (top / "a/b").rename(top / "c")
    (top / "a/b").write_bytes(b"a file")


def linked(top: Path) -> None:
    (top / "a/linked").unlink()
    os.link(top / "a/two", top / "a/linked")


def replaced(top: Path) -> None:
    (top / "one").unlink()
    (top / "one").mkdir(mode=0o711)
    (top / "one/inside").write_bytes(b"x")
    (top / "symlink").unlink()
    (top / "symlink").symlink_to("a")


def owned(top: Path) -> None:
    os.chown(top / "a/b/three", 7, 8)
    os.setxattr(top / "a/two", "user.note", b"new")
    (top / "a").chmod(0o700)


def removed(top: Path) -> None:
    (top / "a/b/three").unlink()
    (top / "a/b").rmdir()


def nothing(_top: Path) -> None:
    pass


@pytest.mark.parametrize(
    "change", [nothing, stored, touched, moved, linked, replaced, owned, removed]
)
def test_changes_between_the_steps_are_copied(
    tree: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    copy = TreeCopy(str(tree), tmp_path / "copy")
    copy.begin()
    change(tree)
    copy.finish()
    with open_directory(tmp_path / "copy") as actual, open_directory(tree) as expected:
        times = {b"", b"a"}
        assert compare_trees(actual, expected, timed_directories=times) == []


def test_a_mapping_that_was_written_before_is_copied_again(tree: Path, tmp_path: Path) -> None:
    """A page that is dirty already changes without a new ctime."""
    with (tree / "a/two").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0] = 1
        time.sleep(0.3)
        copy = TreeCopy(str(tree), tmp_path / "copy")
        copy.begin()
        mapped[1] = 2
        copy.finish()
        assert (tmp_path / "copy/a/two").read_bytes() == bytes(mapped)


def test_unchanged_files_are_not_copied_twice(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = TreeCopy(str(tree), tmp_path / "copy")
    copy.begin()
    inode = (tmp_path / "copy/a/two").stat().st_ino
    copy.finish()
    assert (tmp_path / "copy/a/two").stat().st_ino == inode
