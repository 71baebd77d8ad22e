"""Damaged images: the same content mends them, and they do not stop collection."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.puller import Puller
from harness.scripted_registry import ScriptedRegistry, layer
from jaula.config import Paths
from jaula.errors import Conflict, CorruptState, NotFound
from jaula.images.archive.import_archive import import_tar
from jaula.images.archive.load_archive import load
from jaula.images.store import repair
from jaula.images.store.image_store import Image, ImageStore
from jaula.images.store.verify_images import Verification
from jaula.storage.layers.layer_store import LayerStore

DATA = layer("content", 20_000)


class Parts:
    """The files of an image of one layer."""

    def __init__(self, directory: Path, image: Image, store: ImageStore) -> None:
        blobs = directory / "root/images/blobs/sha256"
        self.manifest = blobs / image.manifest.removeprefix("sha256:")
        self.config = blobs / image.id.removeprefix("sha256:")
        self.blob = blobs / store.layers_of(image.manifest)[0].removeprefix("sha256:")
        self.layer = Path(store.layers.path(image.layers[0]))
        self.document = self.layer.parent / "layer.json"
        self.file = self.layer / "etc/note"


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def garble(path: Path) -> None:
    """Replace a byte of the first string by one that UTF-8 does not have."""
    before, quote, after = path.read_bytes().partition(b'"')
    path.write_bytes(before + quote + b"\xff" + after[1:])


def reopened(directory: Path) -> ImageStore:
    """Open the store as an engine does after a power failure."""
    paths = Paths(directory / "root", directory / "run")
    store = ImageStore(paths, LayerStore(paths))
    store.sweep()
    return store


def verify(store: ImageStore) -> list[str]:
    verification = Verification(store)
    return [d.kind for image in store.list() for d in verification.run(image).damages]


DAMAGES = [
    (part, how)
    for part in ("manifest", "config", "blob", "document", "file")
    for how in (shorten, empty, zero)
] + [(part, garble) for part in ("manifest", "config", "document")]


@pytest.mark.parametrize(("part", "how"), DAMAGES)
@pytest.mark.parametrize("way", ["pull", "load", "import"])
def test_the_same_content_mends_an_image(
    way: str, part: str, how: Callable[[Path], None], tmp_path: Path, make: Any
) -> None:
    """Damage is found when the store opens or by a verification, and mended by a new copy."""
    with ScriptedRegistry(DATA) as registry:
        name = {"pull": f"{registry.name}/box:1", "load": "app:1", "import": "raw:1"}[way]

        def arrive(store: ImageStore) -> None:
            if way == "pull":
                puller = Puller(tmp_path)
                puller.store = puller.client.store = store
                puller.client.transfers._store = store
                puller.pull(name)
            elif way == "load":
                archive = make.pack(make.docker(DATA, names=(name,)))
                list(load(store, io.BytesIO(archive)))
            else:
                import_tar(store, io.BytesIO(DATA), name)

        store = reopened(tmp_path)
        arrive(store)
        parts = Parts(tmp_path, store.resolve(name), store)
        how(getattr(parts, part))
        store = reopened(tmp_path)
        assert verify(store) or store.damaged()
        arrive(store)
        assert store.resolve(name).names == (name,)
        assert verify(store) == []
        assert store.damaged() == {}
        assert json.loads(parts.document.read_bytes())["diff_id"]
        for image in store.list():  # an import makes another image of the same layer
            store.remove(image.id, force=True)
        assert store.layers.ids() == []
        assert store.blobs.list() == {}


@pytest.fixture
def images(tmp_path: Path, make: Any) -> ImageStore:
    store = reopened(tmp_path)
    for name in ("one", "two"):
        archive = make.pack(make.docker(layer(name), names=(f"{name}:1",)))
        list(load(store, io.BytesIO(archive)))
    return store


@pytest.mark.parametrize(
    ("part", "stays"),
    [("manifest", 0), ("config", 1), ("blob", 1), ("document", 1)],
)
def test_a_damaged_image_keeps_its_parts_and_stops_no_collection(
    images: ImageStore, tmp_path: Path, part: str, stays: int
) -> None:
    """The layers of a damaged image stay if its manifest can be read. Others are collected."""
    parts = Parts(tmp_path, images.resolve("one:1"), images)
    shorten(getattr(parts, part))
    store = reopened(tmp_path)
    other = store.resolve("two:1")
    assert {"Deleted": other.layers[0]} in store.remove("two:1")
    assert not store.layers.has(other.layers[0])
    assert len(store.layers.ids()) == stays
    if part != "blob":
        with pytest.raises(CorruptState, match="pull or load it again"):
            store.resolve("one:1")
    store.remove("one:1")
    assert store.layers.ids() == []
    assert store.blobs.list() == {}


def test_a_damaged_layer_document_is_repaired(images: ImageStore, tmp_path: Path) -> None:
    parts = Parts(tmp_path, images.resolve("one:1"), images)
    empty(parts.document)
    store = reopened(tmp_path)
    for manifest in store.damaged():
        repair.repair(store, manifest)
    assert store.damaged() == {}
    assert verify(store) == []


def test_a_damaged_image_without_a_name_is_removed_by_its_manifest(
    images: ImageStore, tmp_path: Path
) -> None:
    image = images.resolve("one:1")
    parts = Parts(tmp_path, image, images)
    images.remove("one:1", force=True, in_use="a container uses it")
    shorten(parts.manifest)
    store = reopened(tmp_path)
    with pytest.raises(CorruptState):
        store.resolve(image.manifest)
    assert store.remove(image.manifest)[0] == {"Deleted": image.manifest}
    assert store.damaged() == {}
    with pytest.raises(NotFound):
        store.remove(image.manifest)


def test_a_damaged_layer_under_running_containers_is_not_replaced(
    images: ImageStore, tmp_path: Path, make: Any
) -> None:
    parts = Parts(tmp_path, images.resolve("one:1"), images)
    zero(parts.file)
    assert set(verify(images)) == {"layer"}
    images.layers.users = lambda diff_id: ("web",)
    archive = make.pack(make.docker(layer("one"), names=("one:1",)))
    with pytest.raises(Conflict, match="containers run on it: web"):
        list(load(images, io.BytesIO(archive)))
    images.layers.users = lambda diff_id: ()
    list(load(images, io.BytesIO(archive)))
    assert verify(images) == []
