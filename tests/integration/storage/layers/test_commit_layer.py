"""Commit of an upper directory: its tar extracts to the directory itself."""

from __future__ import annotations

import io
import os
import socket
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.kernel import mounts
from jaula.storage.layers import commit_layer
from jaula.storage.layers.extract import Extractor
from jaula.storage.tar.tar_reader import TarReader
from jaula.storage.trees import is_opaque, open_directory, read_xattrs, walk

NEWEST = 1_600_000_000 * 10**9


@pytest.fixture
def upper(tmp_path: Path) -> Iterator[Path]:
    """An upper directory that overlayfs wrote, with changes of every kind."""
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for place in (lower, upper, work):
        place.mkdir()
    for name in ("gone", "kept", "changed", "replaced"):
        (lower / name).write_text(name)
    for name in ("folder", "emptied", "same"):
        (lower / name).mkdir()
        (lower / name / "inside").write_text("x")
    tree = mounts.overlay([str(lower)], str(upper), str(work))
    try:
        with open_directory(".", dir_fd=tree) as root:
            place = Path(f"/proc/self/fd/{root}")
            (place / "gone").unlink()
            (place / "changed").write_text("new")
            (place / "replaced").unlink()
            (place / "replaced").mkdir()
            for entry in ("emptied", "folder"):
                (place / entry / "inside").unlink()
            (place / "emptied").rmdir()
            (place / "emptied").mkdir()
            (place / "emptied" / "other").write_text("y")
            (place / "same" / "made").touch()
            (place / "same" / "made").unlink()
            (place / "link").symlink_to("kept")
            os.link(place / "changed", place / "hard")
            os.mkfifo(place / "fifo")
            os.mknod(place / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.chown(place / "changed", 12, 34)
            os.setxattr(place / "changed", "user.a", b"b")
            os.setxattr(place / "changed", "trusted.c", b"d")
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(place / "socket"))
        yield upper
    finally:
        os.close(tree)


def told(path: Path) -> dict[bytes, tuple[object, ...]]:
    """Return the metadata of a tree that a layer stores."""
    found: dict[bytes, tuple[object, ...]] = {}
    with open_directory(path) as root:
        for above, folder, entries in walk(root):
            for name, facts in entries:
                kept = {k: v for k, v in read_xattrs(folder, name).items() if k.startswith("user.")}
                opaque = False
                if stat.S_ISDIR(facts.st_mode):
                    with open_directory(os.fsdecode(name), dir_fd=folder) as inner:
                        opaque = is_opaque(inner)
                whole = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_rdev, facts.st_nlink)
                seconds = facts.st_mtime_ns // 10**9
                if stat.S_ISCHR(facts.st_mode) and not facts.st_rdev:
                    whole, seconds = (0, 0, 0, 0, 0), 0
                found[above + b"/" + name] = (whole, seconds, kept, opaque)
    return found


def archive(upper: Path, **options: object) -> bytes:
    data = bytearray()
    with open_directory(upper) as directory:
        commit_layer.write_upper(directory, data.extend, **options)  # type: ignore[arg-type]
    return bytes(data)


def test_the_tar_extracts_to_the_upper_directory(upper: Path, tmp_path: Path) -> None:
    data = archive(upper)
    again = tmp_path / "again"
    again.mkdir()
    with open_directory(again) as root:
        Extractor(root).run(TarReader(io.BytesIO(data)))
    assert told(again) == told(upper)
    assert archive(upper) == data
    assert b"/socket" not in told(upper)


def test_unchanged_files_are_pruned(upper: Path, tmp_path: Path) -> None:
    with open_directory(upper) as directory, open_directory(tmp_path / "lower") as below:
        assert commit_layer.prune_unchanged(directory, below, lambda found: found)
        left = told(upper)
        assert b"/gone" in left and b"folder/inside" in left
        assert commit_layer.prune_unchanged(directory, below, lambda found: {}) is False
    assert not list(upper.iterdir())


def test_a_new_directory_is_not_opaque_and_a_replaced_one_is(tmp_path: Path) -> None:
    lower, upper = tmp_path / "low", tmp_path / "up"
    for path in (lower / "kept/old", upper / "kept/new", upper / "kept/replaced"):
        path.mkdir(parents=True)
    (lower / "kept/replaced").mkdir()
    (lower / "kept/replaced/file").touch()
    for path in (upper / "kept/new", upper / "kept/replaced"):
        os.setxattr(path, "trusted.overlay.opaque", b"y")
    with open_directory(upper) as directory, open_directory(lower) as below:
        assert commit_layer.prune_unchanged(directory, below, lambda found: found)
    assert os.listxattr(upper / "kept/new") == []
    assert os.getxattr(upper / "kept/replaced", "trusted.overlay.opaque") == b"y"


@pytest.mark.parametrize("exact", [False, True])
def test_times_are_limited_to_the_maximum(upper: Path, exact: bool) -> None:
    os.utime(upper / "hard", ns=(0, 0))
    data = archive(upper, newest=NEWEST, exact=exact)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        times = {member.name: member.mtime for member in tar if ".wh." not in member.name}
    old = NEWEST // 10**9 if exact else 0
    assert times["changed"] == old
    assert set(times.values()) == {old, NEWEST // 10**9}


def test_a_redirected_upper_directory_is_refused(upper: Path) -> None:
    os.setxattr(upper / "replaced", "trusted.overlay.redirect", b"/kept")
    with pytest.raises(commit_layer.Redirected):
        archive(upper)
