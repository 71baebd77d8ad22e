"""The choice of a storage driver, and the overlay driver."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.config import EngineConfig, Paths
from jaula.daemon.create_engine import open_storage_driver
from jaula.errors import InvalidRequest, Unsupported
from jaula.kernel import mounts
from jaula.spec.rootfs import OverlayRoot
from jaula.state.container_records import StorageDriverRecord
from jaula.state.database import Database
from jaula.storage.drivers.driver_choice import open_driver, select_driver
from jaula.storage.drivers.overlay import probe
from jaula.storage.drivers.storage_driver import open_root
from jaula.storage.layers.layer_store import LayerStore

Tar = Callable[..., bytes]
ID = "c0ffee"


def test_ten_containers_share_their_layers(paths: Paths, layers: LayerStore, tar: Tar) -> None:
    info = layers.extract(io.BytesIO(tar(("big", b"x" * 5_000_000))))
    snapshots = open_driver("overlay", paths, layers)
    for n in range(10):
        snapshots.create(f"c{n}", (info.diff_id,))
    used = sum(p.lstat().st_blocks * 512 for p in paths.root.rglob("*"))
    assert used < 6_000_000


def test_more_layers_than_fit_in_a_page_of_options_are_mounted(
    paths: Paths, layers: LayerStore, tar: Tar
) -> None:
    ids = tuple(
        layers.extract(io.BytesIO(tar((f"f{n}", str(n)), ("last", str(n))))).diff_id
        for n in range(200)
    )
    snapshots = open_driver("overlay", paths, layers)
    snapshots.create(ID, ids)
    with open_root(snapshots.root(ID)) as root:
        descriptor = os.open("last", os.O_RDONLY, dir_fd=root)
        with open(descriptor, encoding="ascii") as file:
            assert file.read() == "199"
        assert len(os.listdir(root)) == 201


def test_an_unknown_driver_is_an_error(paths: Paths, layers: LayerStore) -> None:
    with pytest.raises(InvalidRequest, match="zfs"):
        select_driver(paths, "zfs", layers)


def test_vfs_is_chosen_if_overlay_does_not_work(
    tmp_path: Path, layers: LayerStore, tar: Tar
) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    mount = mounts.overlay(
        [str(tmp_path / "lower")], str(tmp_path / "upper"), str(tmp_path / "work")
    )
    try:
        inside = Path(f"/proc/self/fd/{mount}")
        (inside / "deep").mkdir()
        with pytest.raises(Unsupported, match="overlay does not work on overlayfs"):
            probe(inside / "deep")
        assert list((inside / "deep").iterdir()) == []
        assert select_driver(Paths(inside / "root", tmp_path / "run")).name == "vfs"
    finally:
        os.close(mount)


def test_overlay_is_chosen_if_it_works(paths: Paths) -> None:
    chosen = select_driver(paths)
    assert chosen.name == "overlay"
    assert sorted(p.name for p in paths.root.iterdir()) == ["layers"]


def test_overlay_orders_layers_for_the_kernel(paths: Paths, layers: LayerStore, tar: Tar) -> None:
    base, top = (layers.extract(io.BytesIO(tar((name, "x")))).diff_id for name in "ab")
    source = open_driver("overlay", paths, layers).view((base, top))
    assert isinstance(source, OverlayRoot)
    assert source.lowers == (layers.path(top), layers.path(base))


def test_the_btrfs_driver_is_chosen_if_it_has_containers(
    on_btrfs: Path, tmp_path: Path, tar: Tar
) -> None:
    paths = Paths(on_btrfs / "root", tmp_path / "run")
    layers = LayerStore(paths)
    assert select_driver(paths, None, layers).name == "overlay"
    info = layers.extract(io.BytesIO(tar(("a", "x"))))
    open_driver("btrfs", paths, layers).create(ID, (info.diff_id,))
    assert select_driver(paths, None, layers).name == "btrfs"


def test_btrfs_is_refused_on_another_file_system(paths: Paths, layers: LayerStore) -> None:
    with pytest.raises(Unsupported, match="btrfs snapshots do not work on"):
        open_driver("btrfs", paths, layers)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the directories in which the overlay driver is probed during the test."""
    directories: list[Path] = []

    def record(directory: Path, *, user_xattr: bool) -> None:
        directories.append(directory)
        probe(directory, user_xattr=user_xattr)

    monkeypatch.setattr("jaula.storage.drivers.overlay.probe", record)
    return directories


def test_a_recorded_driver_is_not_probed_again(
    paths: Paths, layers: LayerStore, probes: list[Path]
) -> None:
    config = EngineConfig(paths=paths)
    database = Database(paths.database)
    for _ in range(2):
        driver = open_storage_driver(database, config, layers, rootless=False)
        assert driver.name == "overlay"
    assert probes == [paths.root]


@pytest.mark.parametrize(
    "recorded", [StorageDriverRecord("overlay", "nfs"), StorageDriverRecord("vfs", "extfs")]
)
def test_a_driver_is_probed_on_another_file_system_or_if_another_is_recorded(
    paths: Paths, layers: LayerStore, probes: list[Path], recorded: StorageDriverRecord
) -> None:
    database = Database(paths.database)
    database.put("settings", "storage-driver", recorded)
    open_storage_driver(database, EngineConfig(paths=paths), layers, rootless=False)
    assert probes == [paths.root]


@pytest.mark.parametrize("free", [0, 1])
def test_an_overlay_that_the_kernel_makes_read_only_is_an_error(tmp_path: Path, free: int) -> None:
    (tmp_path / "lower").mkdir()
    # Inodes for the root, upper and work. Overlayfs creates two directories below work.
    disk = mounts.new_filesystem("tmpfs", (("nr_inodes", str(3 + free)),))
    try:
        top = Path(f"/proc/self/fd/{disk}")
        (top / "upper").mkdir()
        (top / "work").mkdir()
        with pytest.raises(OSError, match="No space left on device"):
            mounts.overlay([str(tmp_path / "lower")], f"{top}/upper", f"{top}/work")
    finally:
        os.close(disk)
