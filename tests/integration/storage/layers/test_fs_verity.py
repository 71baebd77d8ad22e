"""Layers that are protected by fs-verity, on file systems that have it."""

from __future__ import annotations

import errno
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness import loop_mount
from jaula.config import Paths
from jaula.errors import CorruptState, Unsupported
from jaula.kernel import fsverity
from jaula.storage.erofs import layer
from jaula.storage.layers.layer_store import LayerStore

Tar = Callable[..., bytes]

MARK = b"a file whose bytes are looked for on the disk"
FILE_SYSTEMS = {
    "ext4": ("mkfs.ext4", "-q", "-O", "verity"),
    "btrfs": ("mkfs.btrfs", "-q"),
}


@pytest.fixture(params=FILE_SYSTEMS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system on a loop device; the image is ``disk.img``."""
    with loop_mount.mounted(tmp_path, *FILE_SYSTEMS[request.param]) as top:
        yield top


@pytest.fixture
def store(disk: Path) -> Iterator[LayerStore]:
    paths = Paths(disk / "root", disk / "run")
    paths.layers.mkdir(parents=True)
    layer.probe(paths.layers, verity=True)
    assert os.listdir(paths.layers) == []
    store = LayerStore(paths, format="verity")
    yield store
    for diff_id in store.ids():
        store.remove(diff_id)
    store.close()


@pytest.fixture
def archive(tar: Tar) -> bytes:
    return tar(("dir", "dir", {"mode": 0o755}), ("dir/marked", MARK * 300), ("other", b"x" * 9000))


def later_store(disk: Path) -> closing[LayerStore]:
    """Return the store of a later engine, which has nothing of the former in memory.

    It has the index of chunks open until it is closed.
    """
    return closing(LayerStore(Paths(disk / "root", disk / "run"), format="verity"))


def directory_of(disk: Path, diff_id: str) -> Path:
    return disk / "root" / "layers" / diff_id[7:]


@pytest.mark.vm
def test_the_files_of_a_layer_cannot_be_written(
    disk: Path, store: LayerStore, archive: bytes
) -> None:
    info = store.extract(io.BytesIO(archive))
    assert info.erofs is not None
    for name, digest in (("metadata", info.erofs.metadata), ("blob", info.erofs.blob)):
        path = directory_of(disk, info.diff_id) / name
        with pytest.raises(PermissionError):
            os.open(path, os.O_RDWR)
        with open(path, "rb") as file:
            assert fsverity.measure(file.fileno()) == digest
    assert Path(store.path(info.diff_id), "dir/marked").read_bytes() == MARK * 300


@pytest.mark.vm
def test_a_byte_that_is_changed_on_the_disk_is_an_error_at_a_read(
    disk: Path, store: LayerStore, archive: bytes
) -> None:
    diff_id = store.extract(io.BytesIO(archive)).diff_id
    root = store.path(diff_id)
    assert loop_mount.change(disk.parent, MARK)
    with pytest.raises(OSError) as caught:
        Path(root, "dir/marked").read_bytes()
    assert caught.value.errno == errno.EIO
    assert Path(root, "other").read_bytes() == b"x" * 9000
    store.mark(diff_id, damaged=True)
    problems = [each.problem for each in store.check(io.BytesIO(archive), diff_id, repair=True)]
    assert problems == ["it cannot be read: Input/output error"]
    assert Path(store.path(diff_id), "dir/marked").read_bytes() == MARK * 300


@pytest.mark.vm
def test_a_blob_of_another_layer_is_compared_with_its_digest(
    disk: Path, store: LayerStore, archive: bytes, tar: Tar
) -> None:
    first = store.extract(io.BytesIO(archive))
    second = store.extract(io.BytesIO(tar(("copy", MARK * 300), ("own", b"y" * 5000))))
    assert first.erofs is not None
    assert second.erofs is not None
    assert second.erofs.shared == (first.erofs.blob,)
    assert Path(store.path(second.diff_id), "copy").read_bytes() == MARK * 300
    store.remove(first.diff_id)
    assert store.problem(second.diff_id) == ""
    assert Path(store.path(second.diff_id), "copy").read_bytes() == MARK * 300
    link = directory_of(disk, second.diff_id) / "blob.2"
    assert store.stored_sizes([second.diff_id])([second.diff_id]) == 5000 + link.stat().st_size
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    assert store.problem(second.diff_id) == "damaged"


@pytest.mark.vm
def test_a_name_that_is_changed_on_the_disk_is_never_seen(
    disk: Path, store: LayerStore, tar: Tar
) -> None:
    names = [f"file-with-a-long-name-{number:06}" for number in range(3000)]
    data = tar(*((name, "") for name in names))
    diff_id = store.extract(io.BytesIO(data)).diff_id
    assert loop_mount.change(disk.parent, b"file-with-a-long-name-001500")
    with later_store(disk) as later:
        try:
            root = later.path(diff_id)
        except CorruptState:
            return  # the changed block was read by the mount
        with pytest.raises(OSError) as caught:
            os.listdir(root)
    assert caught.value.errno in (errno.EIO, errno.EUCLEAN)


@pytest.mark.vm
@pytest.mark.parametrize("name", ["metadata", "blob"])
@pytest.mark.parametrize("protected", [False, True])
def test_a_replaced_file_is_not_mounted(
    disk: Path, store: LayerStore, archive: bytes, name: str, protected: bool
) -> None:
    diff_id = store.extract(io.BytesIO(archive)).diff_id
    path = directory_of(disk, diff_id) / name
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"!")
    if protected:
        with open(path, "rb") as file:
            fsverity.enable(file.fileno())
    with later_store(disk) as later:
        assert not later.is_intact(diff_id)
        with pytest.raises(CorruptState, match=f"the file {name} of the layer") as caught:
            later.path(diff_id)
        assert caught.value.hint == "jaula system check --repair"
        later.check(io.BytesIO(archive), diff_id, repair=True)
        assert later.is_intact(diff_id)
        assert Path(later.path(diff_id), "dir/marked").read_bytes() == MARK * 300


@pytest.mark.vm
def test_a_layer_without_fs_verity_gets_it_by_a_repair(
    disk: Path, store: LayerStore, archive: bytes
) -> None:
    with closing(LayerStore(Paths(disk / "root", disk / "run"))) as plain:
        diff_id = plain.extract(io.BytesIO(archive)).diff_id
    assert not store.is_intact(diff_id)
    problems = store.check(io.BytesIO(archive), diff_id, repair=True)
    assert [each.problem for each in problems] == ["it is without fs-verity"]
    assert store.is_intact(diff_id)
    assert Path(store.path(diff_id), "other").read_bytes() == b"x" * 9000


@pytest.mark.vm
def test_the_digest_is_that_of_the_description_of_the_file(disk: Path) -> None:
    """Compare with the digest that the kernel's documentation defines, of a file of one block."""
    import hashlib
    import struct

    path = disk / "file"
    path.write_bytes(b"content")
    with open(path, "rb") as file:
        with pytest.raises(OSError) as caught:
            fsverity.measure(file.fileno())
        assert caught.value.errno == errno.ENODATA
        fsverity.enable(file.fileno())
        measured = fsverity.measure(file.fileno())
    root = hashlib.sha256(b"content".ljust(4096, b"\0")).digest()
    descriptor = struct.pack("<BBBBIQ64s32s144x", 1, 1, 12, 0, 0, 7, root, b"")
    assert measured == f"sha256:{hashlib.sha256(descriptor).hexdigest()}"


def test_a_file_system_without_fs_verity_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with loop_mount.mounted(tmp_path, "mkfs.ext4", "-q", "-O", "^verity") as top:
        with pytest.raises(Unsupported, match="verity=on needs fs-verity") as caught:
            layer.probe(top, verity=True)
        assert "tune2fs -O verity" in caught.value.hint
        assert os.listdir(top) == ["lost+found"]


def test_a_file_system_that_cannot_hold_mounted_files_is_refused(tmp_path: Path) -> None:
    top = tmp_path / "memory"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", top], check=True)
    try:
        with pytest.raises(Unsupported, match="cannot mount EROFS files on tmpfs"):
            layer.probe(top, verity=False)
        assert os.listdir(top) == []
    finally:
        subprocess.run(["umount", top], check=True)
