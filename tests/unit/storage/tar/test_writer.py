"""The tar writer: other readers and our reader read its archives, byte for byte."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.storage.tar import tar_writer
from jaula.storage.tar.tar_entry import DIRECTORY, REGULAR, SYMLINK
from jaula.storage.tar.tar_reader import TarReader
from jaula.storage.tar.tar_writer import (
    HardLinks,
    TarWriter,
    new_entry,
    tar_entry,
    translate_capability,
    write_tree,
)

NAMES = st.binary(min_size=1, max_size=300).filter(lambda n: b"\0" not in n and n.strip(b"/"))


def test_the_standard_library_reads_the_archive() -> None:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    writer.add(new_entry("d", DIRECTORY, mode=0o1777, mtime=5))
    long = "d/" + "n" * 150
    made = new_entry(long, size=3)
    made.uid = 3_000_000_000
    made.xattrs = {"user.a": b"b"}
    writer.add(made, (b"ab", b"c"))
    writer.add(new_entry("l", SYMLINK, mode=0o777, link="t" * 120))
    writer.finish()
    assert len(out.getvalue()) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        folder, file, link = tar.getmembers()
        assert (folder.name, folder.mode, folder.mtime) == ("d", 0o1777, 5)
        assert (file.name, file.uid, file.size) == (long, 3_000_000_000, 3)
        assert file.pax_headers["SCHILY.xattr.user.a"] == "b"
        content = tar.extractfile(file)
        assert content is not None
        assert content.read() == b"abc"
        assert link.linkname == "t" * 120


@given(NAMES, NAMES, st.binary(max_size=2000), st.integers(0, 2**32 - 2), st.integers(0, 2**40))
def test_a_written_archive_is_read_back(
    name: bytes, link: bytes, data: bytes, owner: int, time: int
) -> None:
    out = io.BytesIO()
    writer = TarWriter(out.write)
    file = new_entry(name.rstrip(b"/") or b"f", size=len(data), mtime=time)
    file.uid = owner
    file.xattrs = {"user.x": data}
    writer.add(file, (data,))
    writer.add(new_entry(b"l", SYMLINK, link=link))
    writer.finish()
    reader = TarReader(io.BytesIO(out.getvalue()))
    first = reader.next()
    assert first is not None
    assert (first.name, first.uid, first.mtime) == (file.name, owner, time * 10**9)
    assert first.xattrs == {"user.x": data}
    assert reader.read(2000, "f") == data
    second = reader.next()
    assert second is not None
    assert second.link == link
    assert reader.next() is None


def test_the_checksum_of_a_header_with_the_largest_bytes_is_their_sum() -> None:
    out = io.BytesIO()
    name = b"\xff" * 155 + b"/" + b"\xff" * 100
    writer = TarWriter(out.write)
    writer.add(new_entry(name, SYMLINK, mode=0o7777, link=b"\xff" * 100))
    writer.finish()
    header = out.getvalue()[:512]
    assert int(header[148:154], 8) == sum(header[:148] + b" " * 8 + header[156:])


def test_every_kind_of_file_of_a_tree_is_archived_by_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/file").write_bytes(b"content")
    (tmp_path / "a").hardlink_to(tmp_path / "b/file")
    (tmp_path / "link").symlink_to("b")
    (tmp_path / "link2").hardlink_to(tmp_path / "link")
    os.mkfifo(tmp_path / "queue")
    found = _archive(tmp_path)
    assert [(each.name, each.type) for each in found] == [
        ("a", tarfile.REGTYPE),
        ("b", tarfile.DIRTYPE),
        ("link", tarfile.SYMTYPE),
        ("link2", tarfile.LNKTYPE),
        ("queue", tarfile.FIFOTYPE),
        ("b/file", tarfile.LNKTYPE),
    ]
    assert (found[3].linkname, found[5].linkname) == ("link", "a")


def test_a_removed_file_is_no_link_of_one_that_has_its_inode(tmp_path: Path) -> None:
    """A file that is removed while it is read has no name, and the kernel gives its inode again."""
    (tmp_path / "file").touch()
    with open(tmp_path / "file") as file:
        (tmp_path / "file").unlink()
        removed = os.fstat(file.fileno())
    links = HardLinks()
    assert not links.link(tar_entry(b"removed", REGULAR, removed), removed)
    named = os.stat_result((*removed[:3], 2, *removed[4:]))
    entry = tar_entry(b"named", REGULAR, named)
    assert not links.link(entry, named)
    assert (entry.type, entry.link) == (REGULAR, b"")


def test_a_file_that_is_replaced_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listing has regular files, and other kinds are opened."""
    (tmp_path / "link").symlink_to("z")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    (tmp_path / "z").write_bytes(b"last")
    names = [b"absent", b"directory", b"fifo", b"link", b"socket", b"z"]

    def listing(root: int) -> list[tuple[bytes, int, list[tuple[bytes, int]]]]:
        return [(b"", root, [(name, stat.S_IFREG) for name in names])]

    monkeypatch.setattr(tar_writer, "walk_types", listing)
    assert [each.name for each in _archive(tmp_path)] == ["z"]


def test_a_file_that_shrinks_meanwhile_is_padded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a" * 1000)
    read = os.read

    def shrink(descriptor: int, size: int) -> bytes:
        os.truncate(file, 300)
        return read(descriptor, size)

    monkeypatch.setattr(tar_writer.os, "read", shrink)
    out = io.BytesIO()
    _write(tmp_path, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        content = tar.extractfile("file")
        assert content is not None
        assert content.read() == b"a" * 300 + bytes(700)


def _archive(directory: Path) -> list[tarfile.TarInfo]:
    out = io.BytesIO()
    _write(directory, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return tar.getmembers()


def _write(directory: Path, out: io.BytesIO) -> None:
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_tree(root, out.write)
    finally:
        os.close(root)


def test_small_pieces_reach_the_sink_together_and_in_order() -> None:
    pieces: list[bytes] = []
    writer = TarWriter(lambda data: pieces.append(bytes(data)))
    reused = bytearray(4)
    for number in range(1000):
        reused[:] = b"%04d" % number  # a caller may reuse its buffer
        writer.add(new_entry(f"{number}", size=4), (memoryview(reused),))
    large = bytes(1 << 20)
    writer.add(new_entry("large", size=len(large)), (large,))
    writer.finish()
    assert len(pieces) < 20
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        for number, member in enumerate(tar.getmembers()[:1000]):
            file = tar.extractfile(member)
            assert file is not None
            assert file.read() == b"%04d" % number
        assert tar.getmember("large").size == len(large)


def test_a_file_of_another_length_than_announced_is_an_error() -> None:
    for data in (b"", b"ab", b"abcd"):
        with pytest.raises(ValueError, match="bytes"):
            TarWriter(lambda data: None).add(new_entry("f", REGULAR, size=3), (data,))


def test_capabilities_of_a_user_namespace_are_those_of_its_root() -> None:
    sets = bytes(range(16))
    plain = bytes((1, 0, 0, 2)) + sets
    shown = bytes((1, 0, 0, 3)) + sets + (100_000).to_bytes(4, "little")
    inside = lambda uid, gid: (uid - 100_000, gid - 100_000)  # noqa: E731
    assert translate_capability(shown, inside) == plain
    assert translate_capability(plain, inside) == plain
    nested = bytes((1, 0, 0, 3)) + sets + (101_000).to_bytes(4, "little")
    assert translate_capability(nested, inside)[20:] == (1000).to_bytes(4, "little")
    assert translate_capability(b"\1\0\0\3short", inside) == b"\1\0\0\3short"
