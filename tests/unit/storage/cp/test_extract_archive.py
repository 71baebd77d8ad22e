"""Extract an archive into a directory that other processes use."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.storage.cp.create_archive import ArchiveWriter
from jaula.storage.cp.extract_archive import ArchiveExtractor
from jaula.storage.tar.tar_reader import TarReader

Unpack = Callable[..., None]


def archive(*entries: tuple[str, bytes | None, dict[str, object]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data, more in entries:
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = 1000, 0o644
            if data is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(data)
            for key, value in more.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data or b""))
    return file.getvalue()


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    (tmp_path / "to").mkdir()

    def run(data: bytes, directory: str = "/to", **options: bool) -> None:
        root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
        try:
            ArchiveExtractor(root, directory, **options).run(TarReader(io.BytesIO(data)))
        finally:
            os.close(root)

    return run


def test_files_directories_links_and_times_arrive(tmp_path: Path, unpack: Unpack) -> None:
    unpack(
        archive(
            ("d", None, {}),
            ("d/f", b"hello", {"mode": 0o4755}),
            ("d/hard", b"", {"type": tarfile.LNKTYPE, "linkname": "d/f"}),
            ("d/soft", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
            ("d/fifo", b"", {"type": tarfile.FIFOTYPE}),
            ("deep/er/file", b"x", {}),
        )
    )
    to = tmp_path / "to"
    assert (to / "d/f").read_bytes() == b"hello"
    assert (to / "d/f").stat().st_mode & 0o7777 == 0o4755
    assert (to / "d/f").stat().st_mtime == 1000
    assert (to / "d/f").stat().st_ino == (to / "d/hard").stat().st_ino
    assert os.readlink(to / "d/soft") == "/etc"
    assert stat.S_ISFIFO((to / "d/fifo").stat().st_mode)
    assert (to / "d").stat().st_mtime == 1000
    assert (to / "deep/er/file").read_bytes() == b"x"


def test_without_privileges_no_file_is_set_user_id(tmp_path: Path, unpack: Unpack) -> None:
    unpack(archive(("f", b"", {"mode": 0o6755})), privileges=False)
    assert (tmp_path / "to/f").stat().st_mode & 0o7777 == 0o755


def test_directories_merge_and_files_are_replaced(tmp_path: Path, unpack: Unpack) -> None:
    to = tmp_path / "to"
    (to / "d").mkdir()
    (to / "d/kept").write_text("kept")
    (to / "d/old").write_text("old")
    os.link(to / "d/old", tmp_path / "elsewhere")
    unpack(archive(("d", None, {}), ("d/old", b"new", {})))
    assert (to / "d/kept").read_text() == "kept"
    assert (to / "d/old").read_text() == "new"
    assert (tmp_path / "elsewhere").read_text() == "old"


def test_a_link_in_a_files_place_is_replaced_not_followed(tmp_path: Path, unpack: Unpack) -> None:
    (tmp_path / "victim").write_text("safe")
    (tmp_path / "to/f").symlink_to(tmp_path / "victim")
    unpack(archive(("f", b"new", {})))
    assert (tmp_path / "victim").read_text() == "safe"
    assert (tmp_path / "to/f").read_text() == "new"


def test_a_link_in_a_parent_is_followed_inside_the_root(tmp_path: Path, unpack: Unpack) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "to/way").symlink_to("/real")
    unpack(archive(("way/f", b"x", {})))
    assert (tmp_path / "real/f").read_bytes() == b"x"


def test_a_link_of_the_archive_does_not_leave_the_root(tmp_path: Path, unpack: Unpack) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    with pytest.raises(InvalidRequest):
        unpack(
            archive(
                ("l", b"", {"type": tarfile.SYMTYPE, "linkname": str(outside)}),
                ("l/f", b"x", {}),
            )
        )
    assert not list(outside.iterdir())


@pytest.mark.parametrize("name", ["../f", "a/../../f", ".."])
def test_names_that_leave_the_directory_are_refused(
    tmp_path: Path, unpack: Unpack, name: str
) -> None:
    with pytest.raises(InvalidRequest, match="leaves the directory"):
        unpack(archive((name, b"x", {})))
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_device_nodes_are_refused(unpack: Unpack, kind: bytes) -> None:
    with pytest.raises(InvalidRequest, match="device node"):
        unpack(archive(("n", b"", {"type": kind, "devmajor": 1, "devminor": 3})))


def test_file_types_are_kept_on_request(tmp_path: Path, unpack: Unpack) -> None:
    (tmp_path / "to/d").mkdir()
    (tmp_path / "to/d/x").write_text("x")
    (tmp_path / "to/f").write_text("f")
    with pytest.raises(InvalidRequest, match="cannot overwrite directory"):
        unpack(archive(("d", b"", {})), keep_kinds=True)
    with pytest.raises(InvalidRequest, match="cannot overwrite non-directory"):
        unpack(archive(("f", None, {})), keep_kinds=True)
    unpack(archive(("d", b"now a file", {}), ("f", None, {})))
    assert (tmp_path / "to/d").read_text() == "now a file"
    assert (tmp_path / "to/f").is_dir()


def test_a_created_archive_is_extracted_unchanged(tmp_path: Path, unpack: Unpack) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_bytes(os.urandom(700_000))
    os.link(source / "a", source / "sub/b")
    (source / "l").symlink_to("a")
    place = os.open(source, os.O_PATH)
    written = bytearray()
    ArchiveWriter(written.extend).write(place, "copy")
    os.close(place)
    unpack(bytes(written))
    copy = tmp_path / "to/copy"
    assert (copy / "a").read_bytes() == (source / "a").read_bytes()
    assert (copy / "sub/b").stat().st_ino == (copy / "a").stat().st_ino
    assert os.readlink(copy / "l") == "a"


def test_nothing_is_read_from_a_kernel_file_system() -> None:
    place = os.open("/proc/self/status", os.O_PATH)
    try:
        with pytest.raises(InvalidRequest, match="kernel file system"):
            ArchiveWriter(bytearray().extend).write(place, "status")
    finally:
        os.close(place)
