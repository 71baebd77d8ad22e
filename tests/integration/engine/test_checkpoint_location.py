"""The file of an archive appears when it is complete, and never in place of another one."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.config import Paths
from jaula.errors import Conflict, JaulaError, Unavailable
from jaula.features.checkpoint.checkpoint_store import CheckpointStore, Manifest
from jaula.features.kubernetes.pods.pod_checkpoint import Location

SIZE = 4 << 20  # bytes


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, Manifest]:
    """Return the directory of a checkpoint with one file, and its manifest."""
    store = CheckpointStore(tmp_path / "store")
    images = store.begin("a" * 64, "one")
    (images / "pages-1.img").write_bytes(os.urandom(SIZE))
    manifest = Manifest("a" * 64, "one", 0, "4.2", "6.18", "x86_64", "")
    return images.parent, store.commit(images, manifest, hidden=True)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    top = tmp_path / "disk"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(top)], check=True)
    yield top
    subprocess.run(["umount", str(top)], check=True)


def write(path: Path, paths: Paths, checkpoint: tuple[Path, Manifest]) -> None:
    location = Location(str(path), paths)
    try:
        location.write(*checkpoint, b"log")
    finally:
        location.close()


def test_a_full_disk_gets_nothing(
    disk: Path, paths: Paths, checkpoint: tuple[Path, Manifest]
) -> None:
    with pytest.raises(Unavailable):
        write(disk / "x.tar", paths, checkpoint)
    assert not os.listdir(disk)


@pytest.mark.parametrize("unnamed", [True, False], ids=["O_TMPFILE", "temporary name"])
def test_the_file_is_complete_and_accessible_by_its_owner_only(
    tmp_path: Path,
    paths: Paths,
    checkpoint: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    *,
    unnamed: bool,
) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    if not unnamed:
        _without_tmpfile(monkeypatch)
    before = os.umask(0)
    try:
        write(directory / "x.tar", paths, checkpoint)
    finally:
        os.umask(before)
    assert os.listdir(directory) == ["x.tar"]
    status = (directory / "x.tar").stat()
    assert (status.st_mode & 0o7777, status.st_nlink) == (0o600, 1)
    assert status.st_size > SIZE


@pytest.mark.parametrize("unnamed", [True, False], ids=["O_TMPFILE", "temporary name"])
def test_a_file_that_appears_meanwhile_stays(
    tmp_path: Path,
    paths: Paths,
    checkpoint: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    *,
    unnamed: bool,
) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    if not unnamed:
        _without_tmpfile(monkeypatch)
    location = Location(str(directory / "x.tar"), paths)
    (directory / "x.tar").write_text("precious")
    with pytest.raises(Conflict, match="exists"):
        location.write(*checkpoint, b"")
    location.close()
    assert os.listdir(directory) == ["x.tar"]
    assert (directory / "x.tar").read_text() == "precious"


def test_a_directory_that_is_moved_meanwhile_gets_the_file(
    tmp_path: Path, paths: Paths, checkpoint: tuple[Path, Manifest]
) -> None:
    """Nothing is written where a symbolic link in its place leads."""
    directory, moved, other = (tmp_path / name for name in ("directory", "moved", "other"))
    directory.mkdir()
    other.mkdir()
    location = Location(str(directory / "x.tar"), paths)
    directory.rename(moved)
    directory.symlink_to(other)
    location.write(*checkpoint, b"")
    location.close()
    assert os.listdir(moved) == ["x.tar"]
    assert not os.listdir(other)


def test_a_write_ends_with_its_request(
    tmp_path: Path, paths: Paths, checkpoint: tuple[Path, Manifest]
) -> None:
    location = Location(str(tmp_path / "x.tar"), paths)
    location.stopped.set()
    with pytest.raises(JaulaError, match="the request has ended"):
        location.write(*checkpoint, b"")
    location.close()
    assert not (tmp_path / "x.tar").exists()


def _without_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the file system be one that has no O_TMPFILE."""
    real = os.open

    def opened(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", opened)
