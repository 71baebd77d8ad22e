"""Layers as EROFS images that share chunks: their files, removals, sizes and repairs."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.config import Paths
from jaula.errors import InvalidRequest
from jaula.storage.erofs import chunks
from jaula.storage.erofs.layer import ErofsFiles
from jaula.storage.layers.blob_usage import StoredSizes
from jaula.storage.layers.layer_store import LayerInfo, LayerStore

Tar = Callable[..., bytes]
MIB = 1 << 20
COMMON = os.urandom(MIB)
ONLY_FIRST = os.urandom(2 * MIB)
ONLY_SECOND = os.urandom(3 * MIB)


@pytest.fixture
def store(paths: Paths) -> Iterator[LayerStore]:
    """A store with EROFS layers, whose mounts are removed at the end."""
    store = LayerStore(paths, format="erofs")
    yield store
    for diff_id in store.ids():
        store.remove(diff_id)
    store.close()
    assert os.listdir(paths.layers) == []
    assert str(paths.root) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def first(store: LayerStore, tar: Tar) -> str:
    return add(store, tar(("common", COMMON), ("only", ONLY_FIRST)))


@pytest.fixture
def second(store: LayerStore, first: str, tar: Tar) -> str:
    return add(store, tar(("a", ONLY_SECOND), ("dir/copy", COMMON, {"uid": 7})))


def add(store: LayerStore, data: bytes) -> str:
    return store.extract(io.BytesIO(data)).diff_id


def directory(paths: Paths, diff_id: str) -> Path:
    return paths.layers / diff_id[7:]


def content(store: LayerStore, diff_id: str, name: str) -> bytes:
    return Path(store.path(diff_id), name).read_bytes()


def allocated(path: Path) -> int:
    """Return the bytes of a file on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_blocks * 512


def test_a_file_of_another_layer_is_not_stored_again(
    paths: Paths, store: LayerStore, first: str, second: str
) -> None:
    blob, link = directory(paths, first) / "blob", directory(paths, second) / "blob.2"
    assert os.path.samefile(blob, link)
    assert (directory(paths, second) / "blob").stat().st_size == len(ONLY_SECOND)
    assert content(store, second, "dir/copy") == content(store, first, "common") == COMMON
    assert content(store, second, "a") == ONLY_SECOND
    assert os.stat(f"{store.path(second)}/dir/copy").st_uid == 7
    assert os.stat(f"{store.path(first)}/common").st_uid == 0
    assert os.stat(f"{store.path(second)}/dir/copy").st_nlink == 1


def test_a_file_that_a_layer_has_twice_is_stored_once(
    paths: Paths, store: LayerStore, tar: Tar
) -> None:
    diff_id = add(store, tar(("a", COMMON), ("b", COMMON), ("c", COMMON[:-1])))
    assert (directory(paths, diff_id) / "blob").stat().st_size == 2 * MIB
    assert content(store, diff_id, "b") == COMMON
    assert content(store, diff_id, "c") == COMMON[:-1]
    assert os.stat(f"{store.path(diff_id)}/a").st_nlink == 1


def test_parts_of_a_large_file_are_shared(paths: Paths, store: LayerStore, tar: Tar) -> None:
    start, end = os.urandom(chunks.CHUNK_SIZE), os.urandom(MIB + 5)
    add(store, tar(("large", start + end)))
    later = add(store, tar(("large", start + COMMON), ("end", end)))
    assert (directory(paths, later) / "blob").stat().st_size == MIB
    assert content(store, later, "large") == start + COMMON
    assert content(store, later, "end") == end


def test_a_directory_that_becomes_a_layer_shares_chunks(
    paths: Paths, store: LayerStore, first: str, tmp_path: Path
) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "copy").write_bytes(ONLY_FIRST)
    with (upper / "sparse").open("wb") as file:
        file.seek(MIB)
        file.write(b"end")
    diff_id = "sha256:" + "1" * 64
    store.adopt(str(upper), LayerInfo(diff_id, 3 * MIB + 3, 0))
    assert (directory(paths, diff_id) / "blob").stat().st_size == 4096
    assert content(store, diff_id, "copy") == ONLY_FIRST
    assert content(store, diff_id, "sparse") == bytes(MIB) + b"end"


def test_a_removed_layer_leaves_what_others_share(
    paths: Paths, store: LayerStore, first: str, second: str
) -> None:
    shared = directory(paths, second) / "blob.2"
    before = allocated(shared)
    assert store.freed_size([first]) == len(ONLY_FIRST)
    store.remove(first)
    assert allocated(shared) == before - len(ONLY_FIRST)
    assert content(store, second, "dir/copy") == COMMON
    assert store.stored_sizes([second])([second]) == len(COMMON) + len(ONLY_SECOND)


def test_a_layer_shares_chunks_of_a_layer_that_was_removed(
    paths: Paths, store: LayerStore, first: str, second: str, tar: Tar
) -> None:
    store.remove(first)
    third = add(store, tar(("again", COMMON), ("lost", ONLY_FIRST)))
    assert os.path.samefile(directory(paths, third) / "blob.2", directory(paths, second) / "blob.2")
    assert (directory(paths, third) / "blob").stat().st_size == len(ONLY_FIRST)
    assert store.freed_size([second]) == len(ONLY_SECOND)
    store.remove(second)
    assert allocated(directory(paths, third) / "blob.2") == len(COMMON)
    assert content(store, third, "again") == COMMON
    assert content(store, third, "lost") == ONLY_FIRST


def test_sizes_count_a_chunk_once(store: LayerStore, first: str, second: str) -> None:
    together = store.stored_sizes([first, second])
    one, two, three = len(COMMON), len(ONLY_FIRST), len(ONLY_SECOND)
    assert together([first, second]) == one + two + three
    assert together([first]) == one + two
    assert together([second]) == one + three
    assert together([]) == 0
    assert store.freed_size([first, second]) == one + two + three
    assert store.size(second) == one + three
    assert store.inodes(second) == store.inodes(first)


def test_a_layer_in_extraction_keeps_the_chunks_to_which_it_refers(
    paths: Paths, store: LayerStore, first: str, second: str, tar: Tar
) -> None:
    """The owner of its chunks is removed while it has no name yet."""
    data = tar(("copy", ONLY_FIRST), ("last", b"x"))

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            part = super().read(size)
            if first in store.ids() and list(paths.layers.glob("new-*/blob.2")):
                store.remove(first)
            return part

    source = Source(data)
    third = store.extract(source).diff_id
    assert first not in store.ids()
    blob = directory(paths, third) / "blob.2"
    assert content(store, third, "copy") == ONLY_FIRST
    assert content(store, second, "dir/copy") == COMMON
    store.remove(third)
    assert allocated(directory(paths, second) / "blob.2") == len(COMMON)
    assert not blob.exists()


def test_chunks_are_freed_by_the_layer_that_delayed_it(
    paths: Paths, store: LayerStore, first: str, second: str, tar: Tar
) -> None:
    """The removal could not free them: a layer that fails later referred to the blob."""
    data = tar(("copy", COMMON), ("last", b"x"))

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            part = super().read(size)
            if first in store.ids() and list(paths.layers.glob("new-*/blob.2")):
                before = allocated(directory(paths, second) / "blob.2")
                store.remove(first)
                assert allocated(directory(paths, second) / "blob.2") == before
            return part

    with pytest.raises(InvalidRequest, match="the image says"):
        store.extract(Source(data), "sha256:" + "0" * 64)
    assert first not in store.ids()
    assert allocated(directory(paths, second) / "blob.2") == len(COMMON)


def test_chunks_are_freed_by_the_layer_that_only_compared_them(
    paths: Paths, store: LayerStore, first: str, second: str, tar: Tar
) -> None:
    shared = directory(paths, second) / "blob.2"
    with shared.open("r+b") as file:
        file.write(b"damage")
    before = allocated(shared)
    data = tar(("copy", COMMON), ("more", os.urandom(4 * MIB)))

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 3 * MIB and first in store.ids():
                store.remove(first)
                assert allocated(shared) == before
            return super().read(size)

    third = store.extract(Source(data)).diff_id
    assert first not in store.ids()
    assert not (directory(paths, third) / "blob.2").exists()
    assert allocated(shared) == len(COMMON)


def test_a_damaged_chunk_is_not_shared(
    paths: Paths, store: LayerStore, first: str, tar: Tar
) -> None:
    blob = directory(paths, first) / "blob"
    with blob.open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    second = add(store, tar(("copy", COMMON)))
    assert not (directory(paths, second) / "blob.2").exists()
    assert content(store, second, "copy") == COMMON


def test_a_chunk_that_cannot_be_read_is_not_shared(
    paths: Paths, store: LayerStore, first: str, tar: Tar, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.pread

    def fail(descriptor: int, size: int, offset: int) -> bytes:
        if os.path.samestat(os.fstat(descriptor), (directory(paths, first) / "blob").stat()):
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", fail)
    second = add(store, tar(("copy", COMMON)))
    assert not (directory(paths, second) / "blob.2").exists()
    assert content(store, second, "copy") == COMMON


def test_with_fs_verity_a_blob_of_a_removed_layer_is_counted_whole(
    paths: Paths, store: LayerStore, first: str, second: str
) -> None:
    store.remove(first)
    files = ErofsFiles("sha256:1", "sha256:2", ("sha256:3",), len(ONLY_SECOND))
    sizes = StoredSizes(paths.layers, {}, {second[7:]: files})
    assert sizes.together([second[7:]]) == len(COMMON) + len(ONLY_FIRST) + len(ONLY_SECOND)


def test_a_damaged_chunk_is_found_in_each_layer_and_repaired(
    paths: Paths, store: LayerStore, first: str, tar: Tar
) -> None:
    archives = {
        first: tar(("common", COMMON), ("only", ONLY_FIRST)),
        add(store, data := tar(("copy", COMMON))): data,
    }
    with (directory(paths, first) / "blob").open("r+b") as file:
        file.seek(100)
        file.write(b"damage")
    for diff_id, archive in archives.items():
        assert [each.problem for each in store.check(io.BytesIO(archive), diff_id)] == [
            "its content differs"
        ]
    for diff_id, archive in archives.items():
        store.check(io.BytesIO(archive), diff_id, repair=True)
    for diff_id, archive in archives.items():
        assert store.check(io.BytesIO(archive), diff_id) == []
    assert sorted(directory(paths, first).glob("blob*")) == [directory(paths, first) / "blob"]


@pytest.mark.parametrize("file", ["blob.2", "chunks"])
def test_a_missing_file_is_found_and_repaired(
    paths: Paths, store: LayerStore, second: str, tar: Tar, file: str
) -> None:
    archive = tar(("a", ONLY_SECOND), ("dir/copy", COMMON, {"uid": 7}))
    (directory(paths, second) / file).unlink()
    assert store.problem(second) == "damaged"
    assert store.check(io.BytesIO(archive), second, repair=True)
    assert store.problem(second) == ""
    assert store.check(io.BytesIO(archive), second) == []


def test_nothing_is_freed_with_a_damaged_list(
    paths: Paths, store: LayerStore, first: str, second: str, caplog: pytest.LogCaptureFixture
) -> None:
    listed = directory(paths, second) / "chunks"
    listed.write_bytes(listed.read_bytes()[:-1] + b"\xff")
    shared = directory(paths, second) / "blob.2"
    before = allocated(shared)
    store.remove(first)
    assert allocated(shared) == before
    assert "the chunks of a blob are not freed" in caplog.text
    assert content(store, second, "dir/copy") == COMMON


@pytest.mark.parametrize("damage", [b"not a database" * 1000, b"", None])
def test_a_lost_index_is_made_again(
    paths: Paths, store: LayerStore, first: str, tar: Tar, damage: bytes | None
) -> None:
    store.close()
    for each in paths.root.glob("chunks.db*"):
        each.unlink()
    if damage is not None:
        paths.chunk_index.write_bytes(damage)
    later = LayerStore(paths, format="erofs")
    if damage:
        add(later, tar(("small", b"x")))  # removes the damaged file
    second = add(later, tar(("copy", COMMON)))
    assert (directory(paths, second) / "blob.2").exists()


def test_an_index_with_layers_that_are_gone_is_harmless(
    paths: Paths, store: LayerStore, first: str, tar: Tar
) -> None:
    store.close()
    shutil.rmtree(directory(paths, first))
    later = LayerStore(paths, format="erofs")
    second = add(later, tar(("copy", COMMON)))
    assert not (directory(paths, second) / "blob.2").exists()
    assert content(later, second, "copy") == COMMON


def test_a_layer_refers_to_a_limited_number_of_blobs(
    paths: Paths, store: LayerStore, tar: Tar
) -> None:
    parts = [os.urandom(5000) for _ in range(20)]
    for part in parts:
        add(store, tar(("part", part)))
    whole = add(store, tar(*((f"{number}", part) for number, part in enumerate(parts))))
    blobs = list(directory(paths, whole).glob("blob*"))
    assert len(blobs) == 16
    assert (directory(paths, whole) / "blob").stat().st_size == 5 * 8192
    for number, part in enumerate(parts):
        assert content(store, whole, str(number)) == part


def test_the_start_of_an_engine_frees_what_a_removal_left(
    paths: Paths, store: LayerStore, first: str, second: str
) -> None:
    name = store.detach(first)
    assert name is not None
    shared = directory(paths, second) / "blob.2"
    before = allocated(shared)
    later = LayerStore(paths, format="erofs")
    assert later.sweep() == [name]
    assert allocated(shared) == before - len(ONLY_FIRST)
    assert content(later, second, "dir/copy") == COMMON
    later.remove(second)


def test_a_lock_of_another_process_delays_only_the_freeing(
    paths: Paths, store: LayerStore, first: str, second: str
) -> None:
    shared = directory(paths, second) / "blob.2"
    before = allocated(shared)
    with shared.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        store.remove(first)
    assert allocated(shared) == before


def test_a_store_without_erofs_has_no_index(paths: Paths, tar: Tar) -> None:
    store = LayerStore(paths)
    diff_id = add(store, tar(("a", COMMON)))
    assert store.stored_sizes([diff_id])([diff_id]) == len(COMMON)
    store.remove(diff_id)
    assert list(paths.root.iterdir()) == [paths.layers]
