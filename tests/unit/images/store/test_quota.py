"""What the images of an owner take, and the check before an image is named."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.scripted_registry import config_of, digest
from jaula.config import Paths
from jaula.errors import NotAuthorized
from jaula.images.store import image_quota
from jaula.images.store.image_catalog import NAME_OWNER
from jaula.images.store.image_quota import Footprint, Quota, Usage
from jaula.images.store.image_store import Image, ImageStore
from jaula.spec.image_documents import (
    CONFIG,
    LAYER_TAR,
    MANIFEST,
    REF_NAME,
    Descriptor,
    Manifest,
    encode,
)
from jaula.storage.layers.layer_store import LayerInfo, LayerStore


def test_what_images_have_in_common_counts_once() -> None:
    one = Footprint("a", (("blob-1", 10), ("both", 5)), (("layer-1", 100), ("base", 50)))
    two = Footprint("b", (("blob-2", 20), ("both", 5)), (("layer-2", 200), ("base", 50)))
    assert image_quota.usage(()) == Usage(0, 0)
    assert image_quota.usage((one,)) == Usage(1, 165)
    assert image_quota.usage((one, two)) == Usage(2, 385)


def test_a_plain_layer_counts_as_received_and_unpacked() -> None:
    assert image_quota.usage((Footprint("a", (("same", 10),), (("same", 7),)),)) == Usage(1, 17)


def test_an_image_with_two_manifests_is_one() -> None:
    plain = Footprint("a", (("m-1", 3), ("config", 2), ("plain", 30)), (("layer", 20),))
    packed = Footprint("a", (("m-2", 4), ("config", 2), ("packed", 10)), (("layer", 20),))
    assert image_quota.usage((plain, packed)) == Usage(1, 3 + 4 + 2 + 30 + 10 + 20)


def test_documents_are_what_is_no_layer_and_count_once() -> None:
    one = Footprint("a", (), documents=(("manifest", 3), ("config", 20)))
    two = Footprint("a", (), documents=(("other", 4), ("config", 20)))
    assert image_quota.usage((one, two)).documents == 27


def test_the_configuration_and_the_manifest_of_an_image_are_its_documents(tmp_path: Path) -> None:
    owners = Owners(tmp_path)
    image = owners.add("5", "a:1", "a layer of many bytes")
    (manifest,) = owners.store.manifests_of(image.id)
    size = len(owners.store.config_bytes(image)) + len(encode(owners.store.manifest(image)))
    assert manifest
    assert owners.store.usage("5").documents == size


class Owners:
    """A store, and quotas that allow a number of images and bytes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.most = Usage(1000, 1 << 40)
        self.open()

    def open(self) -> None:
        paths = Paths(self.directory / "root", self.directory / "run")
        self.store = ImageStore(paths, LayerStore(paths))

    def quota(self, owner: str) -> Quota:
        def check(arriving: Callable[[], Usage]) -> None:
            usage = arriving()
            if usage.images > self.most.images or usage.size > self.most.size:
                raise NotAuthorized(f"{owner} has {usage}")

        return Quota(owner, check)

    def parts(self, *texts: str) -> list[Descriptor]:
        """Store layers: the blobs have the texts, the unpacked files as many bytes again."""
        found = []
        for text in texts:
            data = text.encode()
            with self.store.blobs.writer() as blob:
                blob.write(data)
                blob.commit()
            upper = self.directory / f"upper-{text}"
            upper.mkdir(exist_ok=True)
            self.store.layers.adopt(str(upper), LayerInfo(digest(data), len(data), len(data)))
            found.append(Descriptor(LAYER_TAR, digest(data), len(data)))
        return found

    def add(self, owner: str, name: str, *texts: str) -> Image:
        with self.store.lease(digest(text.encode()) for text in texts):
            layers = self.parts(*texts)
            document = config_of(*(text.encode() for text in texts))
            return self.store.add(document, layers, [name], self.quota(owner))

    def images(self, owner: str) -> int:
        return self.store.usage(owner).images


@pytest.fixture
def owners(tmp_path: Path) -> Owners:
    return Owners(tmp_path)


def test_an_image_belongs_to_its_first_owner_whatever_names_it_gets(owners: Owners) -> None:
    image = owners.add("5", "a:1", "x")
    owners.add("6", "b:1", "x")
    owners.store.tag("a:1", "c:1")
    owners.add("5", "a:1", "y")  # takes the name
    assert (owners.images("5"), owners.images("6")) == (2, 0)
    owners.open()
    assert (owners.images("5"), owners.images("6")) == (2, 0)
    owners.store.remove("b:1")
    owners.store.remove("c:1")
    owners.open()
    assert owners.images("5") == 1
    assert owners.add("6", "b:1", "x").id == image.id
    assert (owners.images("5"), owners.images("6")) == (1, 1)
    assert owners.store.owner_of(image.id) == "6"


def test_an_image_keeps_its_owner_without_a_name(owners: Owners) -> None:
    image = owners.add("5", "a:1", "x")
    owners.store.remove("a:1", force=True, in_use="a container uses it")
    owners.open()
    assert (owners.store.resolve(image.id).names, owners.images("5")) == ((), 1)


def test_another_manifest_of_an_image_has_the_same_owner(owners: Owners) -> None:
    image = owners.add("5", "a:1", "x")
    store, layers = owners.store, owners.store.manifest(image).layers
    described = Descriptor(CONFIG, image.id, len(store.config_bytes(image)))
    other = encode(Manifest(media_type=MANIFEST, config=described, layers=layers)) + b" "
    store.adopt(other, MANIFEST, ["b:1"], owners.quota("6"))
    assert len(store.manifests_of(image.id)) == 2
    store.remove("a:1")
    owners.open()
    assert (owners.images("5"), owners.images("6")) == (1, 0)


def test_an_image_of_an_older_engine_counts_for_no_caller(owners: Owners) -> None:
    image = owners.add("", "a:1", "x")
    owners.add("5", "b:1", "x")
    assert owners.images("5") == 0
    assert owners.store.owner_of(image.id) == ""
    index = json.loads((owners.directory / "root/images/index.json").read_bytes())
    owned = {d["annotations"][REF_NAME]: d["annotations"] for d in index["manifests"]}
    assert owned == {"a:1": {REF_NAME: "a:1"}, "b:1": {REF_NAME: "b:1", NAME_OWNER: "5"}}


def test_the_size_is_that_of_layers_received_and_unpacked(owners: Owners) -> None:
    owners.add("5", "a:1", "base", "one")
    documents = owners.store.usage("5").size - 2 * len("baseone")
    owners.add("5", "b:1", "base", "two")
    more = owners.store.usage("5").size - 2 * len("baseone") - documents
    assert documents < more < documents + 2 * len("basetwo")
    before = owners.store.usage("5")
    owners.store.remove("b:1")
    owners.add("5", "b:1", "base", "two")
    assert owners.store.usage("5") == before


@pytest.mark.parametrize("most", [Usage(1, 1 << 40), Usage(9, 700)])
def test_an_image_above_the_quota_is_not_named_and_becomes_garbage(
    owners: Owners, most: Usage
) -> None:
    owners.add("5", "a:1", "x")
    before = owners.store.candidates()
    assert owners.store.usage("5").size < most.size
    owners.most = most
    with pytest.raises(NotAuthorized):
        owners.add("5", "b:1", "y" * 100)
    assert [image.names for image in owners.store.list()] == [("a:1",)]
    owners.store.collect()
    assert [sorted(part) for part in owners.store.candidates()] == [sorted(p) for p in before]
    owners.add("5", "b:1", "x")  # it exists
    owners.add("6", "c:1", "y")
    owners.store.remove("a:1")
    owners.store.remove("b:1")
    owners.add("5", "b:1", "z")


def test_of_two_images_at_the_same_time_one_is_refused(owners: Owners) -> None:
    owners.most = Usage(1, 1 << 40)
    ready = threading.Barrier(4)
    refused: list[str] = []

    def arrive(number: int) -> None:
        ready.wait(10)
        try:
            owners.add("5", f"a:{number}", f"text {number}")
        except NotAuthorized:
            refused.append(str(number))

    threads = [threading.Thread(target=arrive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(refused), owners.images("5")) == (3, 1)


def test_what_is_to_arrive_is_checked_by_the_sizes_that_are_known(owners: Owners) -> None:
    image = owners.add("5", "a:1", "x")
    owners.most = Usage(2, 1000)
    check, allowed = owners.store.check_quota, owners.quota("5")
    check(None, [Footprint("new", (("blob", 10_000),))])
    check(allowed, [Footprint("new", (("blob", 100),))])
    check(allowed, [Footprint(image.id, (("blob", 10_000),))])
    check(allowed, [Footprint("damaged", (("b", 10_000),), manifest=image.manifest)])
    for images in (
        [Footprint("new", (("blob", 10_000),))],
        [Footprint("new", ()), Footprint("newer", ())],
    ):
        with pytest.raises(NotAuthorized):
            check(allowed, images)


def test_a_damaged_image_is_stored_again_for_its_owner(owners: Owners) -> None:
    image = owners.add("5", "a:1", "x")
    data = owners.store.blobs.document(image.manifest)
    blob = next(owners.directory.glob(f"root/images/**/{image.id.removeprefix('sha256:')}"))
    content = blob.read_bytes()
    blob.unlink()
    owners.open()
    assert (owners.images("5"), list(owners.store.damaged())) == (0, [image.manifest])
    blob.write_bytes(content)
    owners.most = Usage(0, 0)
    owners.store.adopt(data, MANIFEST, ["b:1"], owners.quota("6"))
    assert (owners.images("5"), owners.images("6")) == (1, 0)
