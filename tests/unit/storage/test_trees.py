"""Removal of file trees, whatever names they have and wherever an earlier removal was ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.storage import trees


def remove(tree: Path) -> None:
    with trees.open_directory(tree.parent) as parent:
        trees.remove_tree(parent, tree.name.encode())


def make(tree: Path) -> None:
    for branch in "abcdef":
        for leaf in ("x/y/z", "x/v", "w"):
            (tree / branch / leaf).mkdir(parents=True)
            (tree / branch / leaf / "file").write_text("data")


def test_a_tree_with_the_names_of_a_removal_is_removed(tmp_path: Path) -> None:
    """rename(2) replaces an empty directory, so a name that exists already must not be chosen."""
    tree = tmp_path / "tree"
    make(tree)
    for first in range(30):
        for second in range(4):
            (tree / f".removed-{first}-{second}").mkdir()
    remove(tree)
    assert not tree.exists()


@pytest.mark.parametrize("steps", [3, 7, 20, 41])
def test_a_removal_that_is_ended_again_and_again_comes_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    class Ended(Exception):
        pass

    left = 0

    def ending(call: Callable[..., None]) -> Callable[..., None]:
        def step(*args: object, **kwargs: object) -> None:
            nonlocal left
            if not left:
                raise Ended
            left -= 1
            call(*args, **kwargs)

        return step

    for name in ("rename", "rmdir", "unlink"):
        monkeypatch.setattr(trees.os, name, ending(getattr(os, name)))
    tree = tmp_path / "tree"
    make(tree)
    ends = 0
    while tree.exists():
        left = steps
        try:
            remove(tree)
        except Ended:
            ends += 1
        assert ends < 100
    assert ends > 1


@pytest.mark.parametrize("tail", [b"", b"end", bytes(5)])
def test_blocks_of_zeros_become_holes(tmp_path: Path, tail: bytes) -> None:
    block = 64 << 10
    data = b"x" + bytes(block - 1) + bytes(block) + bytes(block - 1) + b"y" + bytes(block) + tail
    path = tmp_path / "file"
    with path.open("wb") as file:
        trees.write_sparse(file.fileno(), memoryview(data))
        file.truncate(len(data))
    assert path.read_bytes() == data
    with path.open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == block
        assert os.lseek(file.fileno(), block, os.SEEK_DATA) == 2 * block
