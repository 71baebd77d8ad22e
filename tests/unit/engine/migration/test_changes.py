"""Which files of a second pass are sent again, and what a target accepts."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from jaula.errors import InvalidRequest
from jaula.features.migration.changes import (
    Fingerprint,
    Selection,
    _extract,
    _make_mount_point,
    _remove,
    fingerprint,
)
from jaula.storage.tar.tar_entry import DIRECTORY, SYMLINK
from jaula.storage.tar.tar_writer import TarWriter, new_entry
from jaula.storage.trees import open_directory

OLD = Fingerprint(1, 2, stat.S_IFREG, 5, 1000)


def test_only_what_has_changed_is_sent_again() -> None:
    selection = Selection()
    first = {b"same": OLD, b"grows": OLD, b"recent": OLD._replace(ctime=0), b"goes": OLD}
    assert selection.select(first, [b"usr/gone"]) == (set(first), {b"usr/gone"})
    second = {
        b"same": OLD,
        b"grows": OLD._replace(size=6, ctime=2000),
        b"recent": OLD._replace(ctime=0),
        b"new": OLD,
    }
    changed, gone = selection.select(second, [b"usr/gone"])
    assert changed == {b"grows", b"recent", b"new"}
    assert gone == {b"goes"}


def test_a_file_that_comes_back_is_sent_and_can_go_again() -> None:
    selection = Selection()
    selection.select({b"a": OLD})
    assert selection.select({}) == (set(), {b"a"})
    assert selection.select({b"a": OLD}) == ({b"a"}, set())
    assert selection.select({}) == (set(), {b"a"})


def test_a_file_that_has_just_changed_counts_as_changed_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    status = file.stat()
    assert fingerprint(status, status.st_ctime_ns + 1000).ctime == 0
    assert fingerprint(status, status.st_ctime_ns + 10**9).ctime == status.st_ctime_ns


def archive(path: Path, *entries: Any) -> Path:
    with path.open("wb") as file:
        writer = TarWriter(file.write)
        for entry, *data in entries:
            writer.add(entry, data)
        writer.finish()
    return path


def extract(path: Path, directory: Path) -> None:
    with path.open("rb") as file, open_directory(directory) as fd:
        _extract(file, fd)


def test_a_second_pass_replaces_files_and_keeps_the_others(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir/kept").write_text("kept")
    (tree / "dir/changed").write_text("before")
    (tree / "was-directory").mkdir()
    (tree / "was-directory/file").write_text("")
    uid = os.getuid()

    def entry(*words: Any, **more: Any) -> Any:
        made = new_entry(*words, **more)
        made.uid = made.gid = uid
        return made

    tar = archive(
        tmp_path / "tar",
        (entry("dir/", DIRECTORY, mode=0o700),),
        (entry("dir/changed", size=5), b"after"),
        (entry("was-directory", size=1), b"x"),
        (entry(".wh.plain", size=1), b"y"),
    )
    extract(tar, tree)
    assert (tree / "dir/kept").read_text() == "kept"
    assert (tree / "dir/changed").read_text() == "after"
    assert (tree / "was-directory").read_text() == "x"
    assert (tree / ".wh.plain").read_text() == "y"


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/../out"])
def test_an_entry_that_leaves_the_tree_is_refused(tmp_path: Path, name: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(InvalidRequest):
        extract(archive(tmp_path / "tar", (new_entry(name, size=1), b"x")), tree)
    assert not (tmp_path / "out").exists()


def test_an_entry_below_a_link_stays_in_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "outside").mkdir()
    tar = archive(
        tmp_path / "tar",
        (new_entry("link", SYMLINK, link=str(tmp_path / "outside")),),
        (new_entry("link/file", size=1), b"x"),
    )
    extract(tar, tree)
    assert list((tmp_path / "outside").iterdir()) == []


def test_removal_follows_no_link(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "dir/below").mkdir(parents=True)
    (tree / "file").write_text("")
    outside.mkdir()
    (outside / "kept").write_text("")
    (tree / "link").symlink_to(outside)
    with open_directory(tree) as fd:
        for name in (b"dir", b"file", b"absent/x", b"file/x", b"link/kept", b""):
            _remove(fd, name)
        assert (outside / "kept").exists()
        _remove(fd, b"link")
    assert list(tree.iterdir()) == []


def test_mount_points_stay_in_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "etc").symlink_to("/../../outside")
    with open_directory(root) as fd:
        _make_mount_point(fd, b"/etc/hosts", directory=False)
        _make_mount_point(fd, b"/a/b", directory=True)
        _make_mount_point(fd, b"/a/b", directory=True)
    assert list(outside.iterdir()) == []
    assert (root / "outside/hosts").is_file()
    assert (root / "a/b").is_dir()
