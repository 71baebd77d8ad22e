"""The archives of a container's files have everything that the files have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.storage.checkpoint_files import extract, sparse_sink, write_volume
from jaula.storage.tar.tar_entry import SYMLINK
from jaula.storage.tar.tar_writer import TarWriter, new_entry
from jaula.storage.trees import open_directory

SPARSE = 64 << 20  # bytes
TIME = 1_700_000_000_123_456_789  # nanoseconds


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Make a volume with one file of each kind."""
    top = tmp_path / "volume"
    (top / "directory/below").mkdir(parents=True)
    (top / "file").write_bytes(b"content")
    os.link(top / "file", top / "directory/link")
    (top / ".wh.name").write_bytes(b"a file like any other")
    (top / "symlink").symlink_to("/etc/passwd")
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", 0o020640, os.makedev(1, 3))
    with (top / "sparse").open("wb") as file:
        file.truncate(SPARSE)
        file.seek(SPARSE // 2)
        file.write(b"middle")
    os.setxattr(top / "file", "user.note", b"kept")
    os.chown(top / "file", 1000, 1001)
    os.chmod(top / "file", 0o4750)
    for path in (top / "file", top / "directory", top):
        os.utime(path, ns=(TIME, TIME))
    os.chmod(top, 0o1770)
    os.chown(top, 70, 71)
    return top


def copied(source: Path, target: Path, *, layer: bool = False) -> None:
    archive = target.with_suffix(".tar")
    with (
        open_directory(source) as directory,
        archive.open("xb") as file,
        sparse_sink(file) as sink,
    ):
        write_volume(directory, sink)
    target.mkdir()
    with archive.open("rb") as file, open_directory(target) as directory:
        extract(file, directory, layer=layer)


def test_a_volume_is_the_same_after_its_extraction(volume: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    copied(volume, target)
    names = sorted(str(path.relative_to(volume)) for path in volume.rglob("*"))
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == names
    for name in (".", *names):
        old, new = (volume / name).lstat(), (target / name).lstat()
        assert (old.st_mode, old.st_uid, old.st_gid, old.st_rdev) == (
            new.st_mode,
            new.st_uid,
            new.st_gid,
            new.st_rdev,
        )
        assert old.st_mtime_ns == new.st_mtime_ns, name
    assert (target / "file").read_bytes() == b"content"
    assert (target / "file").samefile(target / "directory/link")
    assert os.getxattr(target / "file", "user.note") == b"kept"
    assert (target / ".wh.name").read_bytes() == b"a file like any other"


def test_holes_stay_holes(volume: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    copied(volume, target)
    for path in (target / "sparse", target.with_suffix(".tar")):
        assert path.stat().st_blocks * 512 < 2 << 20
    assert (target / "sparse").read_bytes() == (volume / "sparse").read_bytes()


def test_an_archive_that_leaves_its_directory_is_refused(tmp_path: Path) -> None:
    archive, target = tmp_path / "a.tar", tmp_path / "target"
    target.mkdir()
    with archive.open("xb") as file:
        writer = TarWriter(file.write)
        writer.add(new_entry("link", SYMLINK, link="/"))
        writer.add(new_entry("../outside", size=1), [b"x"])
        writer.finish()
    with (
        archive.open("rb") as file,
        open_directory(target) as directory,
        pytest.raises(InvalidRequest, match="leaves the layer's directory"),
    ):
        extract(file, directory, layer=False)
    assert not (tmp_path / "outside").exists()
