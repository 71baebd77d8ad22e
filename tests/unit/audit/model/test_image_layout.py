"""Documents of an image are compared with their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from jaula.features.verify.model.image_layout import ImageLayout
from jaula.images.store.index import HELD
from jaula.spec.image_documents import (
    CONFIG,
    INDEX,
    MANIFEST,
    Descriptor,
    ImageDocument,
    Index,
    Manifest,
    RootFS,
    encode,
)

LAYER = "sha256:" + "1" * 64


class Stored(NamedTuple):
    """An image in a layout: its id, and the paths of its documents."""

    id: str
    config: Path
    manifest: Path


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)

    def put(data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        (tmp_path / "blobs" / "sha256" / name).write_bytes(data)
        return name

    config = encode(ImageDocument(os="linux", rootfs=RootFS(diff_ids=(LAYER,))))
    name = put(config)
    described = Descriptor(CONFIG, f"sha256:{name}", len(config))
    data = encode(Manifest(config=described, layers=(Descriptor("x", LAYER, 1),)))
    digest = put(data)
    index = Index(manifests=(Descriptor(MANIFEST, f"sha256:{digest}", len(data)),))
    (tmp_path / "index.json").write_bytes(encode(index))
    blobs = tmp_path / "blobs" / "sha256"
    return Stored(f"sha256:{name}", blobs / name, blobs / digest)


def test_an_intact_image_has_layers_and_no_problem(tmp_path: Path, stored: Stored) -> None:
    image = ImageLayout(tmp_path).image(stored.id)
    assert image.layers == (LAYER,)
    assert image.manifests == (f"sha256:{stored.manifest.name}",)
    assert image.problems == ()


def test_an_image_that_an_index_holds_is_named(tmp_path: Path, stored: Stored) -> None:
    """Of an image index only the manifests count that the engine states to hold."""
    digest = f"sha256:{stored.manifest.name}"
    for held, problems in ((digest, ()), ("", ("no manifest names it",))):
        annotations = {HELD: held} if held else {}
        named = Descriptor(INDEX, "sha256:" + "2" * 64, 1, annotations=annotations)
        (tmp_path / "index.json").write_bytes(encode(Index(manifests=(named,))))
        image = ImageLayout(tmp_path).image(stored.id)
        assert image.problems == problems
        assert image.manifests == ((digest,) if held else ())


@pytest.mark.parametrize("member", ["config", "manifest"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes() + b" "),
        lambda path: path.write_bytes(b"no JSON"),
        lambda path: path.unlink(),
    ],
)
def test_a_changed_document_is_a_problem(
    tmp_path: Path, stored: Stored, member: str, change: Callable[[Path], None]
) -> None:
    change(getattr(stored, member))
    (problem,) = ImageLayout(tmp_path).image(stored.id).problems
    assert getattr(stored, member).name[:12] in problem


def test_an_absent_image_has_problems(tmp_path: Path, stored: Stored) -> None:
    (tmp_path / "index.json").write_bytes(encode(Index(manifests=())))
    assert ImageLayout(tmp_path).image(stored.id).problems == ("no manifest names it",)
    (tmp_path / "index.json").unlink()
    assert ImageLayout(tmp_path).image(stored.id).problems == ("no manifest names it",)
    stored.config.unlink()
    assert ImageLayout(tmp_path).image(stored.id).layers is None
    assert len(ImageLayout(tmp_path).image(stored.id).problems) == 2
