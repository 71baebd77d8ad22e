"""The store: names, removal, restarts and damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaula.config import Paths
from jaula.errors import Conflict, CorruptState, InvalidRequest, NotFound
from jaula.images.store.image_store import Image, ImageStore
from jaula.storage.layers.layer_store import LayerStore

Loaded = Callable[[bytes], list[str]]


@pytest.fixture
def image(store: ImageStore, loaded: Loaded, make: Any) -> Image:
    loaded(make.pack(make.docker(make.layer("base"), make.layer("top"), names=("app:latest",))))
    return store.resolve("app")


def test_an_image_is_found_by_name_and_by_id(store: ImageStore, image: Image) -> None:
    digits = image.id.removeprefix("sha256:")
    for ref in ("app", "app:latest", "docker.io/library/app", image.id, digits, digits[:5]):
        assert store.resolve(ref) == image
    assert store.resolve("sha256:" + digits[:7]) == image
    assert store.resolve(f"app@{image.manifest}") == image


@pytest.mark.parametrize("ref", ["other", "app:2", "0" * 64, "sha256:" + "0" * 64, "x/y/z:1"])
def test_a_missing_image_is_reported(ref: str, store: ImageStore, image: Image) -> None:
    with pytest.raises(NotFound, match="No such image: "):
        store.resolve(ref)


def test_an_id_that_fits_several_is_ambiguous(store: ImageStore, loaded: Loaded, make: Any) -> None:
    for n in range(17):
        loaded(make.pack(make.docker(make.layer(str(n)), names=(f"n{n}:1",))))
    digits = [image.id[7] for image in store.list()]
    common = next(d for d in digits if digits.count(d) > 1)
    with pytest.raises(InvalidRequest, match="ambiguous"):
        store.resolve(common)


def test_a_name_wins_over_the_beginning_of_an_id(store: ImageStore, image: Image) -> None:
    short = image.id[7:12]
    other = store.tag("app", f"{short}:latest")
    assert store.resolve(short) == other


def test_the_store_survives_a_restart(store: ImageStore, image: Image, paths: Paths) -> None:
    store.tag("app", "user/other:2")
    again = ImageStore(paths, LayerStore(paths))
    assert again.sweep() == []
    assert again.resolve("app").names == ("app:latest", "user/other:2")
    assert again.list() == store.list()


def test_names_are_removed_one_by_one(store: ImageStore, image: Image, tmp_path: Path) -> None:
    store.tag("app", "b:1")
    assert store.remove("app") == [{"Untagged": "app:latest"}]
    done = store.remove("b:1")
    assert done[:2] == [{"Untagged": "b:1"}, {"Deleted": image.id}]
    assert sorted(step["Deleted"] for step in done[2:]) == sorted(image.layers)
    assert list((tmp_path / "root/images/blobs/sha256").iterdir()) == []
    assert list((tmp_path / "root/layers").iterdir()) == []


def test_an_id_with_several_names_needs_force(store: ImageStore, image: Image) -> None:
    store.tag("app", "b:1")
    with pytest.raises(Conflict, match="must be forced"):
        store.remove(image.id)
    done = store.remove(image.id[7:19], force=True)
    assert [step for step in done if "Untagged" in step] == [
        {"Untagged": "app:latest"},
        {"Untagged": "b:1"},
    ]
    assert store.list() == []


def test_an_image_in_use_stays(store: ImageStore, image: Image) -> None:
    for ref in ("app", image.id):
        with pytest.raises(Conflict, match="container abc is using it"):
            store.remove(ref, in_use="container abc is using it")
    assert store.remove("app", force=True, in_use="container abc") == [{"Untagged": "app:latest"}]
    assert store.resolve(image.id).names == ()
    assert all(store.layers.has(layer) for layer in image.layers)


def test_a_second_name_of_an_image_in_use_may_go(store: ImageStore, image: Image) -> None:
    store.tag("app", "b:1")
    assert store.remove("b:1", in_use="container abc") == [{"Untagged": "b:1"}]


def test_layers_of_other_images_stay(
    store: ImageStore, image: Image, loaded: Loaded, make: Any
) -> None:
    loaded(make.pack(make.docker(make.layer("base"), names=("other:1",))))
    done = store.remove("app")
    assert {"Deleted": image.layers[1]} in done
    assert {"Deleted": image.layers[0]} not in done
    assert store.layers.has(image.layers[0])


def test_pinned_blobs_are_not_collected(store: ImageStore, image: Image) -> None:
    with store.lease(image.layers):
        store.remove("app")
        assert all(store.layers.has(layer) for layer in image.layers)
    assert len(store.collect()) == 2


def test_a_tag_must_be_a_name(store: ImageStore, image: Image) -> None:
    for bad in ("UPPER", "a@sha256:" + "0" * 64, ""):
        with pytest.raises(InvalidRequest):
            store.tag("app", bad)
    with pytest.raises(NotFound):
        store.tag("nothing", "b:1")


def test_history_lists_sizes_newest_first(store: ImageStore, image: Image) -> None:
    top, base = store.history("app")
    assert (top.id, top.created_by, top.size, top.tags) == (image.id, "step 1", 3, ("app:latest",))
    assert (base.id, base.created_by, base.size) == ("<missing>", "step 0", 4)


def test_empty_layers_have_no_size(store: ImageStore, loaded: Loaded, make: Any) -> None:
    history = [{"created_by": "a"}, {"created_by": "ENV", "empty_layer": True}]
    loaded(make.pack(make.docker(make.layer("1"), make.layer("22"), history=history)))
    assert [(i.created_by, i.size) for i in store.history("app:1")] == [
        ("", 2),
        ("ENV", 0),
        ("a", 1),
    ]


def test_a_damaged_index_is_reported_and_kept(
    store: ImageStore, image: Image, paths: Paths
) -> None:
    index = paths.images / "index.json"
    index.write_text("{ damaged")
    with pytest.raises(CorruptState, match="index of images"):
        ImageStore(paths, LayerStore(paths))
    assert index.read_text() == "{ damaged"


def test_a_damaged_image_does_not_hide_the_others(
    store: ImageStore, image: Image, loaded: Loaded, make: Any, paths: Paths
) -> None:
    loaded(make.pack(make.docker(make.layer("x"), names=("other:1",))))
    config = paths.images / "blobs/sha256" / image.id.removeprefix("sha256:")
    config.write_bytes(config.read_bytes().replace(b"linux", b"LINUX"))
    again = ImageStore(paths, LayerStore(paths))
    assert [i.names for i in again.list()] == [("other:1",)]
    assert "damaged" in again.damaged()[image.manifest]
    assert again.collect() == []
    assert all(again.layers.has(layer) for layer in image.layers)


def test_partial_blobs_are_swept(store: ImageStore, image: Image, paths: Paths) -> None:
    half = paths.images / "blobs/sha256/new-0123"
    half.touch()
    orphan = paths.images / "blobs/sha256" / ("0" * 64)
    orphan.touch()
    assert store.sweep() == ["new-0123"]
    assert not half.exists()
    assert not orphan.exists()
    assert store.manifest(store.resolve("app"))
