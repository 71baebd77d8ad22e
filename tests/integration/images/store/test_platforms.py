"""Images of several platforms: indexes that are loaded, named, saved, damaged and removed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.index_layouts import index_layout
from jaula.config import Paths
from jaula.engine.fsck import fsck_images
from jaula.engine.fsck.problem import FsckInputs
from jaula.engine.system.disk_usage import ImageUsage
from jaula.errors import Conflict, CorruptState, InvalidRequest, NotFound
from jaula.images import image_platform
from jaula.images.archive.load_archive import load
from jaula.images.archive.save_archive import save
from jaula.images.store import repair
from jaula.images.store.image_quota import Quota, Usage
from jaula.images.store.image_store import ImageStore
from jaula.images.store.verify_images import Verification
from jaula.spec.image_documents import INDEX, MANIFEST, Platform
from jaula.storage.layers.layer_store import LayerStore

Loaded = Callable[[bytes], list[str]]

AMD64, ARM64 = Platform("amd64", "linux"), Platform("arm64", "linux")
S390X = Platform("s390x", "linux")


@pytest.fixture(autouse=True)
def on_amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_platform, "host", lambda: AMD64)


@pytest.fixture
def multi(loaded: Loaded, make: Any) -> dict[str, bytes]:
    """Load an index with images for arm64 and amd64. It lists s390x too."""
    files: dict[str, bytes] = make.index("linux/arm64", "linux/amd64", omit=("linux/s390x",))
    assert loaded(make.pack(files)) == ["Loaded image: multi:1"]
    return files


def target(files: dict[str, bytes]) -> str:
    digest: str = json.loads(files["index.json"])["manifests"][0]["digest"]
    return digest


def on_disk(paths: Paths) -> set[str]:
    """Return the names of all blobs and unpacked layers."""
    places = (paths.images / "blobs/sha256", paths.layers)
    return {f.name for place in places for f in place.iterdir()} - {"staging"}


def reopened(paths: Paths) -> ImageStore:
    return ImageStore(paths, LayerStore(paths))


def test_all_images_of_an_index_are_kept_as_one_image(
    store: ImageStore, multi: dict[str, bytes], paths: Paths
) -> None:
    stored = {name.rpartition("/")[2] for name in multi if name.startswith("blobs/")}
    for each in (store, reopened(paths)):
        assert each.sweep() == []
        assert [image.names for image in each.list()] == [("multi:1",)]
        best = each.resolve("multi:1")
        assert best.document.architecture == "amd64"
        assert best.target == target(multi)
        assert each.resolve("multi:1", ARM64).document.architecture == "arm64"
        assert [i.document.architecture for i in each.images(best)] == ["amd64", "arm64"]
        assert stored <= on_disk(paths)
        assert each.blobs.document(best.target) == multi["blobs/" + best.target.replace(":", "/")]


def test_an_image_of_an_index_is_found_by_its_own_id(
    store: ImageStore, multi: dict[str, bytes]
) -> None:
    arm = store.resolve("multi:1", ARM64)
    for ref in (arm.id, arm.id[7:19], arm.manifest, arm.manifest[7:19]):
        assert store.resolve(ref) == arm
    assert store.resolve(arm.id, AMD64) == store.resolve("multi:1")
    assert store.resolve(target(multi)) == store.resolve("multi:1")
    assert store.resolve(f"multi@{arm.manifest}") == arm
    with pytest.raises(NotFound, match="does not match the specified platform"):
        store.resolve(f"multi@{arm.manifest}", AMD64)
    with pytest.raises(NotFound, match="No such image"):
        store.resolve(f"other@{arm.manifest}")


def test_a_platform_that_is_not_stored_is_not_found(
    store: ImageStore, multi: dict[str, bytes]
) -> None:
    with pytest.raises(NotFound, match=r"does not provide the specified platform \(linux/s390x\)"):
        store.resolve("multi:1", S390X)


def test_an_index_without_an_image_for_this_machine_has_its_first_one(
    store: ImageStore, loaded: Loaded, make: Any
) -> None:
    loaded(make.pack(make.index("linux/arm64", "linux/s390x")))
    assert store.resolve("multi:1").document.architecture == "arm64"


def test_only_requested_platforms_are_loaded(store: ImageStore, make: Any, paths: Paths) -> None:
    files = make.index("linux/arm64", "linux/amd64")
    list(load(store, io.BytesIO(make.pack(files)), platforms=[ARM64]))
    assert store.resolve("multi:1").document.architecture == "arm64"
    with pytest.raises(NotFound, match="does not provide"):
        store.resolve("multi:1", AMD64)
    alone = {name.rpartition("/")[2] for name in make.index("linux/arm64") if "sha256/" in name}
    assert alone & on_disk(paths) == on_disk(paths) - {target(files).removeprefix("sha256:")}
    assert len(on_disk(paths)) == 7
    list(load(store, io.BytesIO(make.pack(files)), platforms=[AMD64]))
    assert {i.document.architecture for i in store.images(store.resolve("multi:1"))} == {
        "amd64",
        "arm64",
    }
    with pytest.raises(NotFound, match=r"does not provide the specified platform \(linux/s390x\)"):
        list(load(store, io.BytesIO(make.pack(files)), platforms=[S390X]))


def test_an_index_is_saved_as_it_is(
    store: ImageStore, multi: dict[str, bytes], make: Any, tmp_path: Path
) -> None:
    out = io.BytesIO()
    save(store, ["multi:1"], out.write)
    other = reopened(Paths(tmp_path / "other", tmp_path / "run2"))
    out.seek(0)
    assert [m["stream"] for m in load(other, out, quiet=True)] == ["Loaded image: multi:1\n"]
    assert other.resolve("multi:1", ARM64).manifest == store.resolve("multi:1", ARM64).manifest
    assert other.parts(other.resolve("multi:1")) == store.parts(store.resolve("multi:1"))


def test_one_platform_of_an_index_is_saved_as_an_image(
    store: ImageStore, multi: dict[str, bytes], tmp_path: Path
) -> None:
    out = io.BytesIO()
    save(store, ["multi:1"], out.write, [ARM64])
    other = reopened(Paths(tmp_path / "other", tmp_path / "run2"))
    out.seek(0)
    list(load(other, out))
    image = other.resolve("multi:1")
    assert image.id == store.resolve("multi:1", ARM64).id
    assert other.index(image.target) is None
    with pytest.raises(NotFound, match="linux/s390x"):
        save(store, ["multi:1"], out.write, [S390X])


@pytest.mark.parametrize("chosen", [[], [AMD64], [AMD64, ARM64]])
def test_a_saved_index_is_pinned_and_checked_once(
    store: ImageStore,
    multi: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    chosen: list[Platform],
) -> None:
    """Each pin and check covers all images of the index, which may be hundreds."""
    calls: list[str] = []
    for name in ("pin", "wait_whole", "check_blobs"):
        method = getattr(store, name)
        monkeypatch.setattr(
            store,
            name,
            lambda *words, name=name, method=method: (calls.append(name), method(*words))[1],
        )
    save(store, ["multi:1"], lambda data: None, chosen)
    assert calls == ["pin", "wait_whole", "check_blobs"]
    store.tag("multi:1", "more:1")
    calls.clear()
    save(store, ["multi:1", "more:1"], lambda data: None, chosen)
    assert calls == ["pin", "wait_whole", "check_blobs", "pin"]


def test_a_second_tag_names_the_whole_index(store: ImageStore, multi: dict[str, bytes]) -> None:
    store.tag("multi:1", "other:2")
    assert store.resolve("other:2", ARM64).names == ("multi:1", "other:2")
    assert [step for step in store.remove("multi:1") if "Deleted" in step] == []
    assert store.resolve("other:2", ARM64).document.architecture == "arm64"


def test_the_last_name_takes_everything(
    store: ImageStore, multi: dict[str, bytes], paths: Paths
) -> None:
    result = store.remove("multi:1")
    assert {"Untagged": "multi:1"} in result
    assert on_disk(paths) == set()
    assert result.freed > 0
    assert reopened(paths).list() == []


def test_one_platform_is_removed(
    store: ImageStore, multi: dict[str, bytes], make: Any, paths: Paths
) -> None:
    arm, amd = store.resolve("multi:1", ARM64), store.resolve("multi:1")
    with pytest.raises(Conflict, match="is used"):
        store.remove_platforms("multi:1", [ARM64], in_use=lambda id: "it is used")
    with pytest.raises(Conflict, match="no image left"):
        store.remove_platforms("multi:1", [ARM64, AMD64], in_use=lambda id: None)
    assert store.resolve("multi:1", ARM64) == arm
    result = store.remove_platforms("multi:1", [ARM64], in_use=lambda id: None)
    assert {"Deleted": arm.manifest} in result
    for each in (store, reopened(paths)):
        assert each.resolve("multi:1") == amd
        with pytest.raises(NotFound):
            each.resolve("multi:1", ARM64)
        with pytest.raises(NotFound):
            each.resolve(arm.id)
        assert each.collect() == []
    gone = {arm.id, arm.manifest, *arm.layers}
    assert not {digest.removeprefix("sha256:") for digest in gone} & on_disk(paths)


def test_an_attestation_is_kept_with_its_statement(
    store: ImageStore, multi: dict[str, bytes]
) -> None:
    index = store.index(target(multi))
    assert index is not None
    assert len(index.artifacts) == 2
    store.collect()
    for artifact in index.artifacts:
        manifest = store.document(artifact)
        assert b"predicateType" in store.blobs.document(manifest.layers[0].digest)


def test_a_nested_index_is_loaded_and_kept(
    store: ImageStore, loaded: Loaded, make: Any, paths: Paths
) -> None:
    files = make.index("linux/amd64", "linux/arm64")
    inner = json.loads(files["index.json"])["manifests"][0]
    inner.pop("annotations")
    outer = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]}).encode()
    files[make.blob(outer)] = outer
    named = {"mediaType": INDEX, "digest": make.digest(outer), "size": len(outer)}
    named["annotations"] = {"org.opencontainers.image.ref.name": "nested:1"}
    files["index.json"] = json.dumps({"manifests": [named]}).encode()
    loaded(make.pack(files))
    for each in (store, reopened(paths)):
        assert each.sweep() == []
        assert each.resolve("nested:1", ARM64).document.architecture == "arm64"
        assert each.blobs.document(inner["digest"])


def test_an_archive_that_names_an_index_is_read_as_a_layout(
    store: ImageStore, loaded: Loaded, make: Any
) -> None:
    """Docker's format has one image for a name; newer versions of it write both."""
    files = make.index("linux/amd64", "linux/arm64") | make.docker(
        make.layer("x"), names=("old:1",)
    )
    assert loaded(make.pack(files)) == ["Loaded image: multi:1"]
    assert store.resolve("multi:1", ARM64).document.architecture == "arm64"


def test_an_image_of_which_the_archive_lacks_a_layer_is_left_out(
    store: ImageStore, loaded: Loaded, make: Any
) -> None:
    files = make.index("linux/amd64", "linux/arm64")
    del files[make.blob(make.layer("linux/arm64"))]
    loaded(make.pack(files))
    assert [i.document.architecture for i in store.images(store.resolve("multi:1"))] == ["amd64"]
    del files[make.blob(make.layer("linux/amd64"))]
    with pytest.raises(InvalidRequest, match="does not hold an image"):
        loaded(make.pack(files))


def test_an_index_that_lists_what_it_does_not_have_gets_no_name(
    store: ImageStore, multi: dict[str, bytes], make: Any
) -> None:
    index = store.blobs.document(target(multi))
    other = json.loads(index) | {"annotations": {"a": "b"}, "manifests": []}
    image = store.resolve("multi:1")
    with pytest.raises(CorruptState, match="does not list"):
        store.adopt_index(json.dumps(other).encode(), INDEX, [image.manifest], ["fake:1"])
    with pytest.raises(NotFound):
        store.resolve("fake:1")
    assert store.resolve("multi:1") == image


def test_verification_reads_every_platform(
    store: ImageStore, multi: dict[str, bytes], paths: Paths
) -> None:
    image, arm = store.resolve("multi:1"), store.resolve("multi:1", ARM64)
    assert Verification(store).run(image).damages == ()
    blob = paths.images / "blobs/sha256" / store.layers_of(arm.manifest)[0].removeprefix("sha256:")
    data = bytearray(blob.read_bytes())
    data[600] ^= 1
    blob.write_bytes(data)
    verified = Verification(store).run(image)
    assert verified.layers == 2
    assert {damage.kind for damage in verified.damages} == {"blob", "layer"}


def test_an_image_that_also_has_a_name_of_its_own_is_verified_with_its_index(
    store: ImageStore, multi: dict[str, bytes]
) -> None:
    image = store.resolve("multi:1")
    manifest = store.blobs.document(image.manifest)
    store.adopt(manifest, MANIFEST, ["alone:1"])
    assert store.resolve("alone:1").target == image.manifest
    assert Verification(store).run(store.resolve("alone:1")).layers == 2
    assert len(store.list()) == 1
    store.remove("multi:1")
    assert store.index(target(multi)) is None
    assert store.resolve("alone:1").names == ("alone:1",)
    with pytest.raises(NotFound):
        store.resolve("multi:1")


def test_a_damaged_platform_hides_no_other(
    store: ImageStore, multi: dict[str, bytes], paths: Paths, loaded: Loaded, make: Any
) -> None:
    arm = store.resolve("multi:1", ARM64)
    (paths.images / "blobs/sha256" / arm.id.removeprefix("sha256:")).unlink()
    again = reopened(paths)
    assert again.damaged().keys() == {arm.manifest}
    assert again.resolve("multi:1").document.architecture == "amd64"
    with pytest.raises(CorruptState, match="is damaged"):
        again.resolve("multi:1", ARM64)
    again.collect()
    assert again.blobs.size(arm.manifest)
    assert again.names_of(arm.manifest) == ("multi:1",)
    list(load(again, io.BytesIO(make.pack(multi))))
    assert again.damaged() == {}
    assert again.resolve("multi:1", ARM64) == arm


def test_a_damaged_attestation_hides_no_image(
    store: ImageStore, multi: dict[str, bytes], paths: Paths, make: Any
) -> None:
    index = store.index(target(multi))
    assert index is not None
    lost = index.artifacts[0]
    (paths.images / "blobs/sha256" / lost.removeprefix("sha256:")).unlink()
    again = reopened(paths)
    assert again.damaged().keys() == {lost}
    assert len(again.images(again.resolve("multi:1"))) == 2
    assert again.collect() == []
    list(load(again, io.BytesIO(make.pack(multi))))
    assert again.damaged() == {}
    assert again.index(target(multi)) == index


def test_an_attestation_that_is_not_stored_gives_no_name(
    store: ImageStore, multi: dict[str, bytes]
) -> None:
    image = store.resolve("multi:1")
    index = json.loads(store.blobs.document(image.target))
    absent = index["manifests"][1] | {"digest": "sha256:" + "0" * 64}
    index["manifests"].append(absent)
    held = [image.manifest, absent["digest"]]
    with pytest.raises(NotFound):
        store.adopt_index(json.dumps(index).encode(), INDEX, held, ["other:1"])
    assert store.list() == [image]
    assert store.damaged() == {}


def test_a_damaged_index_keeps_its_images_until_it_is_loaded_or_removed(
    store: ImageStore, multi: dict[str, bytes], paths: Paths, make: Any
) -> None:
    before = store.parts(store.resolve("multi:1"))
    (paths.images / "blobs/sha256" / target(multi).removeprefix("sha256:")).write_bytes(b"{}")
    again = reopened(paths)
    with pytest.raises(CorruptState, match="is damaged"):
        again.resolve("multi:1")
    assert again.collect() == []
    list(load(again, io.BytesIO(make.pack(multi))))
    assert again.parts(again.resolve("multi:1")) == before
    (paths.images / "blobs/sha256" / target(multi).removeprefix("sha256:")).write_bytes(b"{}")
    third = reopened(paths)
    third.remove("multi:1")
    assert on_disk(paths) == set()


def test_a_missing_layer_of_an_index_is_repaired(
    store: ImageStore, multi: dict[str, bytes], paths: Paths
) -> None:
    before = store.images(store.resolve("multi:1"))
    for image in before:
        (paths.layers / image.layers[0].removeprefix("sha256:") / "layer.json").unlink()
    again = reopened(paths)
    assert again.damaged().keys() == {target(multi)}
    repair.repair(again, target(multi))
    assert again.damaged() == {}
    assert again.images(again.resolve("multi:1")) == before


def test_an_unnamed_index_whose_images_all_have_a_name_is_not_kept(
    store: ImageStore, multi: dict[str, bytes], loaded: Loaded, make: Any
) -> None:
    before = store.list()
    index = json.loads(store.blobs.document(target(multi))) | {"annotations": {"a": "b"}}
    data = json.dumps(index).encode()
    named = {"mediaType": INDEX, "digest": make.digest(data), "size": len(data)}
    files = multi | {make.blob(data): data}
    files["index.json"] = json.dumps({"manifests": [named]}).encode()
    (message,) = loaded(make.pack(files))
    assert message.startswith("Loaded image ID: sha256:")
    assert store.list() == before
    assert store.index(make.digest(data)) is None
    assert store.blobs.size(make.digest(data)) is None


def test_labels_of_an_index_are_those_of_all_its_images(store: ImageStore, make: Any) -> None:
    """A user who may remove images with a label must not remove another one with them."""
    both = {
        p: {"config": {"Labels": {"own": "1", "at": p}}} for p in ("linux/amd64", "linux/arm64")
    }
    both["linux/arm64"]["config"]["Labels"]["more"] = "1"
    layers = {platform: make.layer(platform) for platform in both}
    files = index_layout(layers, "multi:1", more_of=both)
    list(load(store, io.BytesIO(make.pack(files))))
    for image in store.images(store.resolve("multi:1")):
        assert store.common_labels(image) == {"own": "1"}
    store.remove_platforms("multi:1", [ARM64], in_use=lambda id: None)
    assert store.common_labels(store.resolve("multi:1")) == {"own": "1", "at": "linux/amd64"}


def test_a_damaged_platform_is_found_and_repaired(
    store: ImageStore, multi: dict[str, bytes], paths: Paths
) -> None:
    arm = store.resolve("multi:1", ARM64)
    (paths.layers / arm.layers[0].removeprefix("sha256:") / "layer.json").unlink()
    again = reopened(paths)
    services: Any = SimpleNamespace(images=again, started_at=0)
    inputs = FsckInputs(services, (), frozenset(), frozenset())
    (problem,) = fsck_images.check(inputs)
    assert (problem.area, problem.subject) == ("image", "multi:1")
    assert problem.repair is not None
    problem.repair()
    assert list(fsck_images.check(inputs)) == []
    assert again.resolve("multi:1", ARM64) == arm


def test_disk_usage_counts_every_platform_once(
    store: ImageStore, multi: dict[str, bytes], paths: Paths
) -> None:
    image, arm = store.resolve("multi:1"), store.resolve("multi:1", ARM64)
    usage = ImageUsage(store)
    layers = sum(store.layers.size(layer) for layer in {*image.layers, *arm.layers})
    assert usage.whole() == sum(store.blobs.list().values()) + layers
    assert usage.size(image.id) == usage.whole()
    assert usage.unused((), ()) == usage.whole()
    assert usage.unused((arm.id,), ()) == 0
    assert store.unpacked_size(image) == image.size + arm.size


def test_a_pulled_platform_joins_the_index_and_its_bringer_pays(
    store: ImageStore, make: Any
) -> None:
    files = make.pack(make.index("linux/amd64", "linux/arm64"))
    limit = Usage(1, 1 << 30)

    def quota(owner: str) -> Quota:
        def check(use: Callable[[], Usage]) -> None:
            assert use().images <= limit.images, "an index counts as one image"

        return Quota(owner, check)

    list(load(store, io.BytesIO(files), platforms=[AMD64], quota=quota("ann")))
    one = store.usage("ann")
    assert one.images == 1
    list(load(store, io.BytesIO(files), platforms=[AMD64], quota=quota("bob")))
    assert store.usage("bob") == Usage(0, 0)
    list(load(store, io.BytesIO(files), platforms=[ARM64], quota=quota("bob")))
    assert store.usage("ann") == Usage(0, 0)
    both = store.usage("bob")
    assert both.images == 1
    assert both.size > one.size


def test_an_image_that_exceeds_the_quota_leaves_the_index_as_it_was(
    store: ImageStore, make: Any, paths: Paths
) -> None:
    files = make.pack(make.index("linux/amd64", "linux/arm64"))
    list(load(store, io.BytesIO(files), platforms=[AMD64]))
    before, amd = on_disk(paths), store.resolve("multi:1")

    def refuse(use: Callable[[], Usage]) -> None:
        if len(store.images(amd)) > 1:
            raise Conflict("too much")

    with pytest.raises(Conflict, match="too much"):
        list(load(store, io.BytesIO(files), platforms=[ARM64], quota=Quota("bob", refuse)))
    assert store.images(amd) == [amd]
    assert on_disk(paths) == before


def test_a_plain_image_that_gets_an_index_loses_its_own_unnamed_manifest(
    store: ImageStore, make: Any
) -> None:
    files = make.index("linux/amd64", "linux/arm64")
    layer = make.layer("linux/amd64")
    config = next(data for data in files.values() if b"amd64" in data and b"diff_ids" in data)
    listed = [{"Config": "c.json", "RepoTags": ["multi:1"], "Layers": ["l"]}]
    single = {"c.json": config, "l": layer, "manifest.json": json.dumps(listed).encode()}
    list(load(store, io.BytesIO(make.pack(single))))
    plain = store.resolve("multi:1")
    assert plain.target == plain.manifest
    list(load(store, io.BytesIO(make.pack(files))))
    image = store.resolve("multi:1")
    assert image.id == plain.id
    assert image.target == target(files)
    assert store.manifests_of(image.id) == (image.manifest,)
    assert [i.id for i in store.list()] == [image.id]


def test_an_older_unnamed_index_stays_while_an_image_of_it_has_no_other_name(
    store: ImageStore, loaded: Loaded, make: Any
) -> None:
    loaded(make.pack(make.index("linux/amd64", "linux/arm64")))
    arm = store.resolve("multi:1", ARM64)
    loaded(make.pack(make.index("linux/amd64", "linux/s390x")))
    assert store.resolve("multi:1", S390X).document.architecture == "s390x"
    assert store.resolve(arm.id).document.architecture == "arm64"
    assert len(store.list()) == 1
    store.remove("multi:1")
    with pytest.raises(NotFound):
        store.resolve(arm.id)
