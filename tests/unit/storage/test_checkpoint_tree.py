"""A checkpoint that an image carries: its layer is hostile input."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.checkpoint_archive import TreeReader
from jaula.features.checkpoint.checkpoint_store import (
    MAC,
    MANIFEST,
    SPEC,
    CheckpointStore,
    Manifest,
    decode,
)
from jaula.storage.trees import open_directory


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """Return the directory of an archive's members, as the layer of an image has them."""
    store = CheckpointStore(tmp_path / "store")
    images = store.begin("a" * 64, "one")
    (images / "pstree.img").write_bytes(b"tree")
    (images / "pages-1.img").write_bytes(os.urandom(100_000))
    (images.parent / SPEC).write_bytes(b"{}")
    store.commit(images, Manifest("a" * 64, "one", 0, "4.2", "6.18", "x86_64", ""), hidden=True)
    images.rename(images.parent / "checkpoint")
    root = tmp_path / "layer"
    images.parent.rename(root)
    return root


def extract(layer: Path, target: Path) -> Manifest:
    target.mkdir()
    with open_directory(str(layer)) as fd:
        reader = TreeReader(fd)
        manifest = decode(reader.head().manifest)
        reader.extract(manifest, target)
        reader.close()
    return manifest


def test_the_files_of_the_manifest_are_copied(layer: Path, tmp_path: Path) -> None:
    (layer / "config.dump").write_text("{}")  # for other programs
    manifest = extract(layer, tmp_path / "target")
    assert manifest.name == "one"
    copied = tmp_path / "target/images/pages-1.img"
    assert copied.read_bytes() == (layer / "checkpoint/pages-1.img").read_bytes()
    assert (tmp_path / "target" / SPEC).read_bytes() == b"{}"
    assert not (tmp_path / "target/config.dump").exists()


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("has no manifest.json", lambda root: (root / MANIFEST).unlink()),
        ("has no manifest.mac", lambda root: (root / MAC).unlink()),
        ("lacks 'checkpoint/pstree.img'", lambda root: (root / "checkpoint/pstree.img").unlink()),
        ("was changed", lambda root: (root / "checkpoint/pstree.img").write_bytes(b"eert")),
        ("has 5 bytes", lambda root: (root / "checkpoint/pstree.img").write_bytes(b"trees")),
        (
            "levels of symbolic links",
            lambda root: _replace(root / MANIFEST, lambda path: path.symlink_to("/etc/passwd")),
        ),
        (
            "levels of symbolic links",
            lambda root: _replace(root / SPEC, lambda path: path.symlink_to("/etc/passwd")),
        ),
        ("is not a plain file", lambda root: _replace(root / SPEC, os.mkfifo)),
        ("is not a plain file", lambda root: _replace(root / MAC, Path.mkdir)),
        ("has more than", lambda root: (root / MAC).write_bytes(bytes(100_000))),
        ("is not base64", lambda root: (root / "manifest.sig").write_text("***")),
    ],
)
def test_a_changed_layer_is_refused(
    layer: Path, tmp_path: Path, words: str, change: Callable[[Path], object]
) -> None:
    change(layer)
    with pytest.raises(InvalidRequest, match=words):
        extract(layer, tmp_path / "target")


def test_a_directory_that_is_a_link_is_refused(layer: Path, tmp_path: Path) -> None:
    (layer / "checkpoint").rename(tmp_path / "elsewhere")
    (layer / "checkpoint").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidRequest, match="levels of symbolic links"):
        extract(layer, tmp_path / "target")
