"""The btrfs driver: subvolumes, data shared with the layers, nested subvolumes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.config import Paths
from jaula.kernel import btrfs_ioctl
from jaula.storage.drivers.btrfs_driver import BtrfsDriver
from jaula.storage.drivers.storage_driver import open_root
from jaula.storage.layers.layer_store import LayerStore

Tar = Callable[..., bytes]
MEGA = 1_000_000


@pytest.fixture
def paths(on_btrfs: Path, tmp_path: Path) -> Paths:
    return Paths(on_btrfs / "root", tmp_path / "run")


@pytest.fixture
def driver(paths: Paths, layers: LayerStore) -> BtrfsDriver:
    return BtrfsDriver(paths, layers)


@pytest.fixture
def image(layers: LayerStore, tar: Tar) -> tuple[str, ...]:
    data = [tar(("base", os.urandom(20 * MEGA))), tar(("top", "x"))]
    return tuple(layers.extract(io.BytesIO(each)).diff_id for each in data)


@pytest.fixture
def top(on_btrfs: Path) -> Iterator[int]:
    descriptor = os.open(on_btrfs, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def used(path: Path) -> int:
    os.sync()
    facts = os.statvfs(path)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def subvolumes(top: int) -> int:
    return len(btrfs_ioctl.children(top, btrfs_ioctl.subvol_id(top)))


def test_ten_containers_cost_no_data(
    driver: BtrfsDriver, image: tuple[str, ...], paths: Paths
) -> None:
    before = used(paths.root)
    for n in range(10):
        driver.create(f"c{n}", image)
    assert used(paths.root) - before < 4 * MEGA


def test_a_merged_tree_is_made_from_its_lower_one_and_is_read_only(
    driver: BtrfsDriver, image: tuple[str, ...], paths: Paths
) -> None:
    below = Path(driver.view(image[:1]).path)  # type: ignore[union-attr]
    above = Path(driver.view(image).path)  # type: ignore[union-attr]
    assert (above / "base").stat().st_ino == (below / "base").stat().st_ino
    with pytest.raises(OSError, match="Read-only"):
        (above / "new").touch()


def test_subvolumes_of_a_container_are_removed_with_it(
    driver: BtrfsDriver, image: tuple[str, ...], top: int
) -> None:
    driver.create("c", image)
    with open_root(driver.root("c")) as root:
        btrfs_ioctl.subvol_create(root, "one")
        inner = os.open("one", os.O_RDONLY, dir_fd=root)
        btrfs_ioctl.subvol_create(inner, "two")
        btrfs_ioctl.snap_create(inner, inner, "three", read_only=True)
        os.close(inner)
    driver.remove("c")
    assert subvolumes(top) == 0


def test_a_merged_tree_is_removed_with_its_last_container(
    driver: BtrfsDriver, image: tuple[str, ...], top: int
) -> None:
    driver.create("one", image)
    driver.create("two", image)
    assert subvolumes(top) == 3
    driver.remove("one")
    assert subvolumes(top) == 2
    driver.remove("two")
    assert subvolumes(top) == 0
