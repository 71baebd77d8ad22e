"""Stores on a full file system: each answers with the remedy, and leaves nothing.

The file system is a tmpfs that is smaller than the reserve of an engine.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaula.config import Paths
from jaula.errors import FREE_SPACE, Unavailable
from jaula.features.checkpoint import container_files
from jaula.features.checkpoint.checkpoint_store import (
    CheckpointFiles,
    CheckpointStore,
    CheckpointVolume,
    Manifest,
)
from jaula.images.store.image_store import ImageStore
from jaula.kernel import mounts
from jaula.storage import checkpoint_files
from jaula.storage.drivers.driver_choice import open_driver
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.tree_copy import TreeCopy
from jaula.storage.trees import open_directory
from jaula.storage.volume_directories import VolumeStore

Tar = Callable[..., bytes]
MIB = 1 << 20
FILLER = "filler"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounts.mount("tmpfs", str(place), "tmpfs", 0, "size=32m,nr_inodes=1000")
    try:
        yield place
    finally:
        mounts.umount2(str(place), 2)


@pytest.fixture
def small(disk: Path, tmp_path: Path) -> Paths:
    return Paths(disk / "root", tmp_path / "run")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a file, on another file system."""
    top = tmp_path / "tree"
    top.mkdir()
    (top / "file").write_bytes(os.urandom(MIB))
    return top


def fill(disk: Path) -> None:
    """Take every byte."""
    with (disk / FILLER).open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(MIB))
    assert os.statvfs(disk).f_bavail == 0


def take_inodes(disk: Path) -> None:
    (disk / FILLER).mkdir()
    number = 0
    while os.statvfs(disk).f_ffree:
        (disk / FILLER / str(number)).touch()
        number += 1


def names(top: Path) -> list[str]:
    found = (str(path.relative_to(top)) for path in top.rglob("*"))
    return sorted(name for name in found if not name.startswith(FILLER))


@contextmanager
def refused(disk: Path, what: str) -> Iterator[None]:
    """Expect the error of a full disk, and no other file than before."""
    before = names(disk)
    with pytest.raises(Unavailable) as raised:
        yield
    assert raised.value.message == f"{what}: No space left on device"
    assert raised.value.hint == FREE_SPACE
    assert names(disk) == before


def archive_of(tree: Path, path: Path) -> Path:
    with (
        open_directory(tree) as directory,
        path.open("xb") as file,
        checkpoint_files.sparse_sink(file) as sink,
    ):
        checkpoint_files.write_volume(directory, sink)
    return path


# -- volumes --------------------------------------------------------------------------------------


def test_a_volume_is_not_created_without_an_inode(disk: Path, small: Paths) -> None:
    volumes = VolumeStore(small)
    take_inodes(disk)
    with refused(disk, "cannot create volume 'new'"):
        volumes.create("new")
    assert volumes.list() == []
    (disk / FILLER / "0").unlink()
    with refused(disk, "cannot create volume 'new'"):  # the directory, and no document
        volumes.create("new")


def test_a_volume_of_an_archive_leaves_the_reserve(
    disk: Path, small: Paths, tree: Path, tmp_path: Path
) -> None:
    volumes = VolumeStore(small)
    with (
        archive_of(tree, tmp_path / "archive").open("rb") as archive,
        refused(disk, "cannot unpack entry 'file'"),
    ):
        volumes.import_("new", {}, archive, check=lambda: None)
    assert volumes.list() == []


def test_a_volume_that_the_image_cannot_fill_is_empty(disk: Path, small: Paths, tree: Path) -> None:
    volumes = VolumeStore(small)
    volume = volumes.create("data").volume
    fill(disk)
    with open_directory(tree.parent) as image:
        with pytest.raises(Unavailable, match="cannot populate volume 'data': No space left"):
            volumes.populate("data", image, tree.name)
        assert os.listdir(volume.path) == []
        (disk / FILLER).unlink()
        assert volumes.populate("data", image, tree.name)
    assert names(Path(volume.path)) == ["file"]
    assert set(os.listdir(Path(volume.path).parent)) == {"_data", "volume.json"}


# -- checkpoints and rollbacks --------------------------------------------------------------------


@pytest.fixture
def checkpoints(disk: Path) -> CheckpointStore:
    store = CheckpointStore(disk / "checkpoints")
    store._read_key()
    return store


def manifest(**more: Any) -> Manifest:
    return Manifest("container", "one", 0, "4", "6", "x86_64", "image", **more)


def begun(checkpoints: CheckpointStore) -> Path:
    images = checkpoints.begin("container", "one")
    (images / "pages").write_bytes(os.urandom(4096))
    return images


def test_a_checkpoint_is_not_begun_without_an_inode(
    disk: Path, checkpoints: CheckpointStore
) -> None:
    take_inodes(disk)
    with refused(disk, "checkpoint one"):
        checkpoints.begin("container", "one")
    with refused(disk, "checkpoint"):
        checkpoints.incoming()


@pytest.mark.parametrize("received", [False, True])
def test_a_checkpoint_without_a_manifest_has_no_name(
    disk: Path, checkpoints: CheckpointStore, received: bool
) -> None:
    images = checkpoints.begin_received("container", "one") if received else begun(checkpoints)
    take_inodes(disk)
    with refused(disk, "checkpoint one"):
        if received:
            checkpoints.seal(manifest())
        else:
            checkpoints.commit(images, manifest())
    checkpoints.discard(images)
    assert checkpoints.names("container") == []


def test_a_copy_of_a_checkpoint_that_does_not_fit_is_removed(
    disk: Path, checkpoints: CheckpointStore, tmp_path: Path
) -> None:
    source = CheckpointStore(tmp_path / "other")
    made = source.commit(begun(source), manifest())
    fill(disk)
    with pytest.raises(Unavailable, match="checkpoint one cannot be copied: No space left"):
        checkpoints.link(made, tmp_path / "other/container/one", copy=True)
    assert os.listdir(disk / "checkpoints/container") == []
    (disk / FILLER).unlink()
    checkpoints.link(made, tmp_path / "other/container/one", copy=True)
    assert checkpoints.names("container") == ["one"]


def test_the_archive_of_files_leaves_the_reserve(disk: Path) -> None:
    with (
        pytest.raises(Unavailable, match="cannot write the container's files: No space") as raised,
        (disk / "archive").open("xb") as file,
        checkpoint_files.sparse_sink(file) as sink,
    ):
        sink(b"x" * 4096)
    assert raised.value.hint == FREE_SPACE
    assert (disk / "archive").stat().st_size == 0


def record_of(*volumes: str) -> Any:
    mounted = [
        SimpleNamespace(type="volume", name=name, destination=f"/{name}", anonymous=False)
        for name in volumes
    ]
    return SimpleNamespace(id="container", mounts=mounted)


def services_of(volumes: VolumeStore, **more: Any) -> Any:
    """Return the services of a container whose root is as in its image."""
    discarded: list[str] = []
    snapshots = SimpleNamespace(
        write_layer=lambda id, kind, sink, exact: False,
        discard=discarded.append,
        discarded=discarded,
    )
    return SimpleNamespace(volumes=volumes, snapshots=snapshots, **more)


def test_copies_of_volumes_leave_the_reserve(disk: Path, small: Paths) -> None:
    volumes = VolumeStore(small)
    volumes.create("data")
    images = disk / "checkpoint/images"
    images.mkdir(parents=True)
    with pytest.raises(Unavailable, match="cannot write the container's files: No space") as raised:
        container_files.begin_copies(services_of(volumes), record_of("data"), images)
    assert raised.value.hint == FREE_SPACE


def test_a_copy_of_a_volume_that_does_not_fit_ends_its_checkpoint(
    disk: Path, small: Paths, tree: Path, tmp_path: Path
) -> None:
    volumes = VolumeStore(Paths(tmp_path / "root", tmp_path / "run"))
    volume = volumes.create("data").volume
    images = tmp_path / "checkpoint/images"
    images.mkdir(parents=True)
    copy = TreeCopy(volume.path, disk / "copy")
    copy.begin()
    (Path(volume.path) / "later").write_bytes((tree / "file").read_bytes())
    fill(disk)
    record = record_of("data")
    with pytest.raises(
        Unavailable, match="cannot copy the container's volumes: No space"
    ) as raised:
        container_files.write(services_of(volumes), record, images, {"data": copy})
    assert raised.value.hint == FREE_SPACE


def test_a_rollback_whose_files_do_not_fit_changes_no_volume(
    disk: Path, small: Paths, tree: Path, tmp_path: Path
) -> None:
    volumes = VolumeStore(small)
    volume = volumes.create("data").volume
    (Path(volume.path) / "present").write_text("x")
    held = CheckpointFiles(volumes=(CheckpointVolume("data", "volume-0.tar", ("/data",)),))
    archive_of(tree, tmp_path / "volume-0.tar")
    store = SimpleNamespace(files=lambda manifest: tmp_path)
    services = services_of(volumes, service=lambda make: store)
    with refused(disk, "cannot unpack entry 'file'"):
        container_files.stage(services, record_of("data"), manifest(held=held))
    assert os.listdir(volume.path) == ["present"]
    assert services.snapshots.discarded == ["container"]


# -- images and containers ------------------------------------------------------------------------


def test_a_layer_leaves_the_reserve(disk: Path, small: Paths, tar: Tar) -> None:
    layers = LayerStore(small)
    with refused(disk, "cannot unpack entry 'file'"):
        layers.extract(io.BytesIO(tar(("file", "x"))))


def test_a_copy_of_an_image_that_does_not_fit_is_removed(
    disk: Path, small: Paths, layers: LayerStore, tree: Path, tar: Tar
) -> None:
    data = (tree / "file").read_bytes().hex()
    layer = layers.extract(io.BytesIO(tar(("file", data)))).diff_id
    driver = open_driver("vfs", small, layers)
    fill(disk)
    with refused(disk, "cannot merge an image's layers"):
        driver.create("one", [layer])
    (disk / FILLER).unlink()
    driver.create("one", [layer])
    assert driver.exists("one")


def test_a_container_that_does_not_fit_leaves_no_directory(
    disk: Path, small: Paths, layers: LayerStore, tar: Tar
) -> None:
    layer = layers.extract(io.BytesIO(tar(("file", "x")))).diff_id
    driver = open_driver("vfs", small, layers)
    driver.create("first", [layer])  # merges the layers
    take_inodes(disk)
    refusals = 0
    while True:  # the directory, chain, the copy and its file
        try:
            driver.create("one", [layer])
        except Unavailable:
            refusals += 1
            with refused(disk, "cannot create a container's files"):
                driver.create("one", [layer])
            next((disk / FILLER).iterdir()).unlink()
        else:
            break
    assert refusals >= 4
    assert driver.exists("one")


def test_a_container_whose_layers_cannot_be_named_leaves_no_directory(
    disk: Path, small: Paths, layers: LayerStore, tar: Tar
) -> None:
    layer = layers.extract(io.BytesIO(tar(("file", "x")))).diff_id
    driver = open_driver("vfs", small, layers)
    driver.create("first", [layer])
    fill(disk)
    with refused(disk, "cannot create a container's files"):
        driver.create("one", [layer])


def test_a_blob_that_does_not_fit_is_not_stored(disk: Path, small: Paths) -> None:
    blobs = ImageStore(small, LayerStore(small), durable=False).blobs
    fill(disk)
    with refused(disk, "cannot store a blob"):
        blobs.put(os.urandom(MIB))
    with refused(disk, "cannot store a blob"), blobs.writer() as writer:
        writer.write(os.urandom(MIB))
        writer.commit()
