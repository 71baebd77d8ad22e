"""The files of a shared /dev/shm: saved while others use them, restored without replacing any."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.storage.checkpoint_files import extract_shm, remove_shm, write_shm
from jaula.storage.trees import open_directory


def saved(directory: Path) -> io.BytesIO:
    data = io.BytesIO()
    with open_directory(str(directory)) as fd:
        write_shm(fd, data.write)
    data.seek(0)
    return data


def restored(data: io.BytesIO, directory: Path) -> dict[str, int]:
    with open_directory(str(directory)) as fd:
        return extract_shm(io.BufferedReader(data), fd)  # type: ignore[arg-type]


@pytest.fixture
def shm(tmp_path: Path) -> Path:
    directory = tmp_path / "shm"
    directory.mkdir()
    return directory


@pytest.fixture
def other(tmp_path: Path) -> Path:
    directory = tmp_path / "other"
    directory.mkdir()
    return directory


def test_plain_files_are_saved_with_mode_and_holes(shm: Path, other: Path) -> None:
    (shm / "segment").write_bytes(bytes(1 << 20) + b"end")
    (shm / "segment").chmod(0o640)
    (shm / "sem.x").write_bytes(b"")
    (shm / "link").symlink_to("/etc/passwd")
    (shm / "directory").mkdir()
    os.mkfifo(shm / "fifo")
    assert [*restored(saved(shm), other)] == ["segment", "sem.x"]
    assert sorted(os.listdir(other)) == ["segment", "sem.x"]
    assert (other / "segment").read_bytes() == bytes(1 << 20) + b"end"
    status = (other / "segment").stat()
    assert status.st_mode & 0o7777 == 0o640
    assert status.st_blocks * 512 < 1 << 20


def test_a_file_of_the_pod_is_not_replaced(shm: Path, other: Path, tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (shm / name).write_text("saved")
    (other / "one").write_text("the pod's")
    (other / "two").symlink_to(tmp_path / "target")
    made = restored(saved(shm), other)
    assert [*made] == ["three"]
    assert (other / "one").read_text() == "the pod's"
    assert not (tmp_path / "target").exists()
    with open_directory(str(other)) as fd:
        remove_shm(fd, made)
    assert sorted(os.listdir(other)) == ["one", "two"]


def test_a_file_that_a_program_has_put_in_the_place_of_a_restored_one_stays(
    shm: Path, other: Path
) -> None:
    for name in ("one", "two", "three"):
        (shm / name).write_text("saved")
    made = restored(saved(shm), other)
    (other / "new").write_text("the pod's")
    (other / "new").rename(other / "two")
    (other / "three").unlink()
    with open_directory(str(other)) as fd:
        remove_shm(fd, made)
    assert {each.name: each.read_text() for each in other.iterdir()} == {"two": "the pod's"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../x", tarfile.REGTYPE),
        ("a/b", tarfile.REGTYPE),
        ("..", tarfile.REGTYPE),
        ("x", tarfile.SYMTYPE),
        ("x", tarfile.LNKTYPE),
        ("x", tarfile.CHRTYPE),
        ("x", tarfile.DIRTYPE),
    ],
)
def test_another_entry_is_refused_and_nothing_stays(other: Path, name: str, kind: bytes) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        first = tarfile.TarInfo("good")
        first.size = 4
        tar.addfile(first, io.BytesIO(b"good"))
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry)
    data.seek(0)
    with pytest.raises(InvalidRequest):
        restored(data, other)
    assert not os.listdir(other)


def test_a_file_that_shrinks_while_it_is_saved_gets_zeros(
    shm: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shm / "segment"
    path.write_bytes(b"x" * 100_000)
    fstat = os.fstat

    def shrunk(fd: int) -> os.stat_result:
        status = fstat(fd)
        if os.path.samestat(status, path.stat()):
            os.truncate(path, 10)
        return status

    monkeypatch.setattr(os, "fstat", shrunk)
    data = saved(shm)
    monkeypatch.undo()
    restored(data, other)
    assert (other / "segment").read_bytes() == b"x" * 10 + bytes(99_990)
