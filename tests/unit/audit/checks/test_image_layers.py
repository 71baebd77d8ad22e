"""Entries of layers are compared with the root by inode; hidden ones are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.features.verify.checks.image_layers import compare, lower_count, same_inode
from jaula.kernel import mountinfo


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root that is made of one layer only: the layer's directory itself."""
    layer = tmp_path / "layer"
    (layer / "etc" / "below").mkdir(parents=True)
    (layer / "etc" / "group").write_bytes(b"x")
    (layer / "bin").mkdir()
    (tmp_path / "upper").mkdir()
    fd = os.open(layer, os.O_PATH)
    yield fd
    os.close(fd)


def layer_options(options: str) -> int:
    line = f"81 85 0:39 / / rw,relatime - overlay overlay rw,{options},uuid=on\n"
    return lower_count(mountinfo.parse(line)[0])


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("lowerdir+=/proc/self/fd/21,lowerdir+=/proc/self/fd/22,upperdir=/u", 2),
        ("lowerdir=/a:/b:/c,upperdir=/u", 3),
        ("lowerdir=/a\\:b:/c,upperdir=/u", 2),
        ("lowerdir=/a", 1),
        ("upperdir=/u", 0),
    ],
)
def test_lower_layers_are_counted(options: str, count: int) -> None:
    assert layer_options(options) == count


def test_high_bits_of_an_inode_number_may_name_a_layer() -> None:
    assert same_inode(11363303, 11363303)
    assert same_inode(1 << 63 | 11363303, 11363303)
    assert not same_inode(11363303, 11363304)


def test_a_layer_is_equal_to_itself(tmp_path: Path, root: int) -> None:
    layer, upper = str(tmp_path / "layer"), str(tmp_path / "upper")
    assert compare(root, layer, [upper], directories=True) == (4, "")
    assert compare(root, layer, [upper], directories=False) == (1, "")


def test_a_copy_of_a_layer_is_another_directory(tmp_path: Path, root: int) -> None:
    """Also one whose files are hard links of the same inodes: directories have none."""
    copy = tmp_path / "copy"
    (copy / "etc").mkdir(parents=True)
    os.link(tmp_path / "layer" / "etc" / "group", copy / "etc" / "group")
    upper = str(tmp_path / "upper")
    assert compare(root, str(copy), [upper], directories=True)[1] == "/etc is of another directory"
    assert compare(root, str(copy), [upper], directories=False) == (1, "")


def test_an_entry_that_the_root_does_not_have_is_a_difference(tmp_path: Path, root: int) -> None:
    other = tmp_path / "other"
    (other / "only").mkdir(parents=True)
    assert compare(root, str(other), [], directories=True) == (0, "/only is of another directory")


@pytest.mark.parametrize("kind", ["file", "directory", "whiteout of the parent", "opaque"])
def test_an_entry_that_a_higher_directory_has_or_hides_is_not_compared(
    tmp_path: Path, root: int, kind: str
) -> None:
    other, upper = tmp_path / "other", tmp_path / "upper"
    (other / "etc" / "own").mkdir(parents=True)
    (upper / "etc").mkdir() if kind != "whiteout of the parent" else (upper / "etc").touch()
    if kind == "file":
        (upper / "etc" / "own").touch()
    elif kind == "directory":
        (upper / "etc" / "own").mkdir()
    elif kind == "opaque":
        os.setxattr(upper / "etc", "user.overlay.opaque", b"y")
    assert compare(root, str(other), [str(upper)], directories=True) == (0, "")


def test_few_entries_of_a_large_layer_are_compared(tmp_path: Path, root: int) -> None:
    for number in range(100):
        (tmp_path / "layer" / f"f{number}").touch()
    layer = str(tmp_path / "layer")
    assert compare(root, layer, [], directories=True) == (4, "")
