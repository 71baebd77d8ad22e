"""ADD of archives: recognised by content, unpacked only below the target."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable

import pytest

from harness.build_context import CopyContext, make
from harness.images import Entry, archive, directory, file, link
from jaula.errors import InvalidRequest


def zstd(data: bytes) -> bytes:
    from backports import zstd as module

    return module.compress(data)


def plain(data: bytes) -> bytes:
    return data


def owned(entry: Entry, uid: int, gid: int) -> Entry:
    entry[0].uid, entry[0].gid = uid, gid
    return entry


@pytest.mark.parametrize("compress", [plain, gzip.compress, bz2.compress, lzma.compress, zstd])
def test_an_archive_is_unpacked(
    copy_context: CopyContext, compress: Callable[[bytes], bytes]
) -> None:
    entries = [directory("d", 0o711), owned(file("d/a", b"x", 0o640), 3, 4), link("l", "d/a")]
    (copy_context.context / "any-name").write_bytes(compress(archive(entries)))
    assert copy_context.add("any-name", to="/o") == {
        "o/": "755 0:0",
        "o/d/": "711 0:0",
        "o/d/a": "640 3:4 x",
        "o/l": "-> d/a",
    }


def test_an_archive_is_copied_on_request(copy_context: CopyContext) -> None:
    data = archive([file("a")])
    (copy_context.context / "a.tar").write_bytes(data)
    copy_context.add("a.tar", to="/o/", unpack=False)
    assert (copy_context.root / "o/a.tar").read_bytes() == data


@pytest.mark.parametrize(
    "data",
    [b"", b"plain text", gzip.compress(b"no tar", mtime=0), b"\x1f\x8b broken", b"\xfd7zXZ\0\0"],
)
def test_a_file_that_only_looks_like_an_archive_is_copied(
    copy_context: CopyContext, data: bytes
) -> None:
    (copy_context.context / "x.tar.gz").write_bytes(data)
    copy_context.add("x.tar.gz", to="/o/")
    assert (copy_context.root / "o/x.tar.gz").read_bytes() == data


def test_a_directory_of_archives_is_copied_unchanged(copy_context: CopyContext) -> None:
    make(copy_context.context, {"s/": None})
    data = archive([file("a")])
    (copy_context.context / "s/a.tar").write_bytes(data)
    copy_context.add("s", to="/o/")
    assert (copy_context.root / "o/a.tar").read_bytes() == data


def test_chown_and_chmod_do_not_apply_to_the_content_of_an_archive(
    copy_context: CopyContext,
) -> None:
    (copy_context.context / "a.tar").write_bytes(archive([owned(file("a", b"x"), 3, 4)]))
    result = copy_context.add("a.tar", to="/new/", owner=(7, 8), chmod="600")
    assert result == {"new/": "755 7:8", "new/a": "644 3:4 x"}


def test_existing_files_are_merged_and_replaced(copy_context: CopyContext) -> None:
    make(copy_context.root, {"d/a": "old", "d/stays": "", "was-file": "", "was-link": "-> /etc"})
    entries = [file("d/a", b"new"), file("was-file/x"), file("was-link/y", b"z")]
    (copy_context.context / "a.tar").write_bytes(archive([directory("was-file"), *entries]))
    make(copy_context.root, {"etc/": None})
    result = copy_context.add("a.tar", to="/")
    assert result["d/a"] == "644 0:0 new" and "d/stays" in result and "was-file/x" in result
    assert list((copy_context.root.parent).glob("etc")) == []


def test_device_nodes_of_a_root_file_system_are_created(copy_context: CopyContext) -> None:
    null = tarfile.TarInfo("dev/null")
    null.type, null.devmajor, null.devminor, null.mode = tarfile.CHRTYPE, 1, 3, 0o666
    (copy_context.context / "a.tar").write_bytes(archive([(null, b"")]))
    copy_context.add("a.tar", to="/")
    facts = (copy_context.root / "dev/null").lstat()
    assert stat.S_ISCHR(facts.st_mode) and facts.st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE(facts.st_mode) == 0o666


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/../out"])
def test_an_entry_outside_the_target_is_refused(copy_context: CopyContext, name: str) -> None:
    (copy_context.context / "a.tar").write_bytes(archive([file("first"), file(name, b"x")]))
    with pytest.raises(InvalidRequest, match="leaves the directory"):
        copy_context.add("a.tar", to="/o")
    assert (
        not (copy_context.root / "out").exists() and not (copy_context.root.parent / "out").exists()
    )


def test_links_in_an_archive_do_not_leave_the_target(copy_context: CopyContext) -> None:
    outside = copy_context.root.parent / "outside"
    outside.mkdir()
    entries = [link("l", str(outside)), file("l/x", b"in"), link("up", "../.."), file("up/y")]
    (copy_context.context / "a.tar").write_bytes(archive(entries))
    with contextlib.suppress(InvalidRequest):
        copy_context.add("a.tar", to="/o")
    assert list(outside.iterdir()) == [] and not (copy_context.root.parent / "y").exists()


def test_a_truncated_archive_is_an_error(copy_context: CopyContext) -> None:
    data = archive([file("a", b"x" * 5000)])
    (copy_context.context / "a.tar").write_bytes(data[:2000])
    with pytest.raises(InvalidRequest, match="truncated"):
        copy_context.add("a.tar", to="/o")


def test_the_digest_of_an_archive_is_that_of_its_bytes(copy_context: CopyContext) -> None:
    from harness.build_context import LOCATION
    from jaula.features.build.files.copy_files import prepare
    from jaula.images.dockerfile.ast import Add

    def digest(data: bytes) -> str:
        (copy_context.context / "a.tar").write_bytes(data)
        return prepare(Add(LOCATION, "ADD", ("a.tar",), "/"), copy_context.tree()).digest()

    one = archive([file("a", b"x")])
    assert digest(one) == digest(one) != digest(archive([file("a", b"y")]))
    assert digest(gzip.compress(one)) != digest(one)


def test_a_checksum_is_only_for_remote_sources(copy_context: CopyContext) -> None:
    make(copy_context.context, {"a": ""})
    with pytest.raises(InvalidRequest, match="checksum"):
        copy_context.add("a", to="/", checksum="sha256:" + "0" * 64)


def test_without_a_context_local_sources_are_refused() -> None:
    from harness.build_context import LOCATION
    from jaula.features.build.files.copy_files import prepare
    from jaula.images.dockerfile.ast import Add

    with pytest.raises(InvalidRequest, match="no build context"):
        prepare(Add(LOCATION, "ADD a /", ("a",), "/"), None)


def test_a_bomb_ends_at_the_disks_reserve(copy_context: CopyContext) -> None:
    info = tarfile.TarInfo("big")
    free = os.statvfs(copy_context.root)
    info.size = free.f_bavail * free.f_frsize * 2
    head = info.tobuf(tarfile.GNU_FORMAT)
    (copy_context.context / "a.tar").write_bytes(head + io.BytesIO(bytes(4096)).getvalue())
    with pytest.raises(Exception, match="No space left"):
        copy_context.add("a.tar", to="/o")
