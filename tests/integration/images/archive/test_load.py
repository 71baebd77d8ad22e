"""Load archives of both formats, complete and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import layers
from jaula.errors import InvalidRequest, JaulaError, NotFound
from jaula.images.archive.load_archive import load
from jaula.images.archive.save_archive import save
from jaula.images.store.image_store import ImageStore
from jaula.spec.image_documents import Platform
from jaula.storage.layers.layer_store import LayerStore

Loaded = Callable[[bytes], list[str]]


def rest(tmp_path: Path) -> list[str]:
    """Return the blobs and layers on disk."""
    root = tmp_path / "root"
    places = (root / "images/blobs/sha256", root / "layers")
    return sorted(result.name for place in places for result in place.iterdir())


def test_a_docker_archive_is_loaded(store: ImageStore, loaded: Loaded, make: Any) -> None:
    one, two = make.layer("1"), make.layer("2")
    assert loaded(make.pack(make.docker(one, two, names=("app:1", "host:5000/a/b:c")))) == [
        "Loaded image: app:1",
        "Loaded image: host:5000/a/b:c",
    ]
    image = store.resolve("app:1")
    assert image.id == make.digest(make.config(one, two))
    assert image.layers == (make.digest(one), make.digest(two))
    assert image.names == ("app:1", "host:5000/a/b:c")
    assert image.config.cmd == ("sh",)
    assert image.size == 2
    assert (Path(store.layers.path(image.layers[1])) / "etc/note").read_text() == "2"


def test_progress_is_docker_messages(store: ImageStore, make: Any) -> None:
    data = make.pack(make.docker(make.layer("1")))
    progress, output = load(store, io.BytesIO(data))
    assert progress["status"] == "Loading layer"
    assert output == {"stream": "Loaded image: app:1\n"}


def test_an_oci_layout_is_loaded(store: ImageStore, loaded: Loaded, make: Any) -> None:
    assert loaded(make.pack(make.oci(make.layer("1")))) == ["Loaded image: app:1"]
    assert store.resolve("app:1").layers == (make.digest(make.layer("1")),)


@pytest.mark.parametrize("compressed", [False, True])
def test_the_annotations_of_a_manifest_are_kept(
    compressed: bool, store: ImageStore, loaded: Loaded, make: Any
) -> None:
    layer = make.layer("1")
    noted = {"org.opencontainers.image.source": "https://example.com/app"}
    if compressed:
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        files = make.oci(
            gzip.compress(layer), diff_ids=(layer,), media_type=kind, annotations=noted
        )
    else:
        files = make.oci(layer, annotations=noted)
    stated = json.loads(files["index.json"])["manifests"][0]
    assert loaded(make.pack(files)) == ["Loaded image: app:1"]
    image = store.resolve("app:1")
    assert image.manifest == stated["digest"]
    document = json.loads(store.blobs.document(image.manifest))
    assert document["annotations"] == noted
    assert loaded(make.pack(files)) == ["Loaded image: app:1"]
    assert store.manifests_of(image.id) == (image.manifest,)


@pytest.mark.parametrize("name", ["BZh91AY&SY", "\x1f\x8b", "(\xb5/\xfd", "\xfd7zXZ"])
def test_a_plain_layer_may_begin_as_a_compressed_one(
    name: str, store: ImageStore, loaded: Loaded, make: Any
) -> None:
    """The first bytes of a tar are the name of its first entry."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"data"))
    layer = file.getvalue()
    loaded(make.pack(make.docker(layer)))
    image = store.resolve("app:1")
    path = os.fsencode(store.layers.path(image.layers[0])) + b"/" + name.encode("latin-1")
    with open(path, "rb") as extracted:
        assert extracted.read() == b"data"
    out = io.BytesIO()
    save(store, ["app:1"], out.write)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        member = archive.extractfile(f"blobs/sha256/{image.layers[0].removeprefix('sha256:')}")
        assert member is not None
        assert member.read() == layer


@pytest.mark.parametrize("whole", [False, True])
def test_compressed_layers_and_archives_are_loaded(
    whole: bool, store: ImageStore, loaded: Loaded, make: Any
) -> None:
    layer = make.layer("1")
    if whole:
        data = gzip.compress(make.pack(make.docker(layer)))
    else:
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        squeezed = gzip.compress(layer)
        data = make.pack(make.oci(squeezed, diff_ids=(layer,), media_type=media_type))
    loaded(data)
    assert store.resolve("app:1").layers == (make.digest(layer),)


def test_an_image_without_a_name_is_reported_by_id(
    store: ImageStore, loaded: Loaded, make: Any
) -> None:
    (output,) = loaded(make.pack(make.docker(make.layer("1"), names=())))
    id = output.removeprefix("Loaded image ID: ")
    assert store.resolve(id).names == ()


def test_layers_shared_by_links_in_old_archives_are_resolved(
    store: ImageStore, loaded: Loaded, make: Any
) -> None:
    layer = make.layer("1")
    files = make.docker(layer, layer)
    del files["1/layer.tar"]
    loaded(make.pack(files, {"1/layer.tar": "../0/layer.tar"}))
    assert len(store.resolve("app:1").layers) == 2


def test_the_manifest_for_this_platform_is_selected_from_an_index(
    store: ImageStore, loaded: Loaded, make: Any
) -> None:
    files = make.oci(make.layer("mine"))
    top = json.loads(files["index.json"])["manifests"][0]
    listed = []
    for architecture in ("s390x", "amd64", "arm64", "386", "riscv64", "ppc64le", "arm"):
        platform = {"architecture": architecture, "os": "linux"}
        listed.append({k: v for k, v in top.items() if k != "annotations"} | {"platform": platform})
    inner = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    files[make.blob(inner)] = inner
    outer = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": make.digest(inner),
        "size": len(inner),
        "annotations": {"io.containerd.image.name": "docker.io/library/multi:1"},
    }
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    assert loaded(make.pack(files)) == ["Loaded image: multi:1"]


def test_loading_again_changes_nothing(store: ImageStore, loaded: Loaded, make: Any) -> None:
    data = make.pack(make.docker(make.layer("1")))
    loaded(data)
    before = store.list()
    loaded(data)
    assert store.list() == before


def test_a_name_moves_to_the_newer_image(store: ImageStore, loaded: Loaded, make: Any) -> None:
    loaded(make.pack(make.docker(make.layer("1"))))
    first = store.resolve("app:1")
    loaded(make.pack(make.docker(make.layer("2"))))
    assert store.resolve("app:1").id != first.id
    assert store.resolve(first.id).names == ()


def broken_docker(make: Any, change: Callable[[dict[str, bytes]], None]) -> bytes:
    files = make.docker(make.layer("1"), make.layer("2"))
    change(files)
    return bytes(make.pack(files))


def listed(files: dict[str, bytes], **change: object) -> None:
    (image,) = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([image | change]).encode()


BROKEN_DOCKER: dict[str, Callable[[dict[str, bytes]], object]] = {
    "no manifest": lambda f: f.pop("manifest.json"),
    "a manifest that is no JSON": lambda f: f.update({"manifest.json": b"{"}),
    "a manifest of the wrong shape": lambda f: f.update({"manifest.json": b'{"a":1}'}),
    "an empty manifest": lambda f: f.update({"manifest.json": b"[]"}),
    "a deeply nested manifest": lambda f: f.update({"manifest.json": b"[" * 200_000}),
    "a huge manifest": lambda f: f.update({"manifest.json": b" " * (5 << 20)}),
    "no configuration": lambda f: f.pop("c.json"),
    "a configuration that is no JSON": lambda f: f.update({"c.json": b"\xff\xfe"}),
    "a configuration of the host's": lambda f: listed(f, Config="/etc/passwd"),
    "a configuration that climbs": lambda f: listed(f, Config="../../../etc/passwd"),
    "a layer of the host's": lambda f: listed(f, Layers=["/etc/passwd", "1/layer.tar"]),
    "a layer that is not there": lambda f: f.pop("1/layer.tar"),
    "too few layers": lambda f: listed(f, Layers=["0/layer.tar"]),
    "layers in another order": lambda f: listed(f, Layers=["1/layer.tar", "0/layer.tar"]),
    "another layer than promised": lambda f: f.update({"1/layer.tar": f["0/layer.tar"]}),
    "a layer that is no tar": lambda f: f.update({"1/layer.tar": b"x" * 4096}),
    "a layer that is empty": lambda f: f.update({"1/layer.tar": b""}),
    "a name that is none": lambda f: listed(f, RepoTags=["../../etc"]),
    "a name with a digest": lambda f: listed(f, RepoTags=["a@sha256:" + "0" * 64]),
    "too many layers": lambda f: listed(f, Layers=["0/layer.tar"] * 501),
    "another system": lambda f: f.update({"c.json": b'{"os":"windows"}'}),
}


@pytest.mark.parametrize("case", BROKEN_DOCKER)
def test_a_broken_docker_archive_leaves_no_files(
    case: str, store: ImageStore, loaded: Loaded, make: Any, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest):
        loaded(broken_docker(make, lambda files: BROKEN_DOCKER[case](files) and None))
    assert store.list() == []
    assert rest(tmp_path) == []


def change_blob(files: dict[str, bytes], make: Any, old: bytes, new: bytes) -> None:
    """Edit the manifest, with a matching digest in the index."""
    index = json.loads(files["index.json"])
    descriptor = index["manifests"][0]
    path = "blobs/" + descriptor["digest"].replace(":", "/")
    data = files.pop(path).replace(old, new)
    descriptor |= {"digest": make.digest(data), "size": len(data)}
    files[make.blob(data)] = data
    files["index.json"] = json.dumps(index).encode()


BROKEN_OCI: dict[str, Callable[[dict[str, bytes], Any], object]] = {
    "a blob of another digest": lambda f, m: f.update(
        {name: data + b" " for name, data in f.items() if name.startswith("blobs/")}
    ),
    "a blob that is not there": lambda f, m: f.pop(next(n for n in f if n.startswith("blobs/"))),
    "a digest that is a path": lambda f, m: change_blob(
        f, m, b'"digest": "sha256:', b'"digest": "sha256:../../'
    ),
    "a digest of another kind": lambda f, m: change_blob(
        f, m, b'"digest": "sha256:', b'"digest": "md5:'
    ),
    "another size than stated": lambda f, m: change_blob(f, m, b'"size": ', b'"size": 1'),
    "an unknown media type": lambda f, m: change_blob(f, m, b"layer.v1.tar", b"layer.v1.squashfs"),
    "a foreign layer": lambda f, m: change_blob(
        f,
        m,
        b"application/vnd.oci.image.layer.v1.tar",
        b"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ),
    "an artifact that is no image": lambda f, m: change_blob(
        f, m, b"image.config.v1+json", b"empty.v1+json"
    ),
    "a manifest that is an index too": lambda f, m: change_blob(
        f, m, b'"schemaVersion"', b'"manifests": [], "schemaVersion"'
    ),
    "a manifest that calls itself an index": lambda f, m: change_blob(
        f, m, b"image.manifest.v1", b"image.index.v1"
    ),
}


@pytest.mark.parametrize("case", BROKEN_OCI)
def test_a_broken_layout_leaves_no_files(
    case: str, store: ImageStore, loaded: Loaded, make: Any, tmp_path: Path
) -> None:
    files = make.oci(make.layer("1"))
    BROKEN_OCI[case](files, make)
    with pytest.raises(InvalidRequest):
        loaded(make.pack(files))
    assert store.list() == []
    assert rest(tmp_path) == []


def test_a_requested_platform_that_the_archive_lacks_is_refused(
    store: ImageStore, make: Any
) -> None:
    files = make.oci(make.layer("1"))
    inner = json.loads(files["index.json"])
    inner["manifests"][0]["platform"] = {"architecture": "vax", "os": "linux"}
    data = json.dumps(inner).encode()
    files[make.blob(data)] = data
    outer = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": make.digest(data),
        "size": len(data),
    }
    files["index.json"] = json.dumps({"manifests": [outer]}).encode()
    with pytest.raises(NotFound, match="linux/amd64"):
        list(load(store, io.BytesIO(make.pack(files)), platforms=[Platform("amd64", "linux")]))
    assert store.list() == []


@pytest.mark.parametrize("length", range(0, 9000, 511))
def test_a_truncated_archive_leaves_no_files(
    length: int, store: ImageStore, loaded: Loaded, make: Any, tmp_path: Path
) -> None:
    data = make.pack(make.docker(make.layer("x" * 3000)))
    assert len(data) > 15_000
    with pytest.raises(InvalidRequest):
        loaded(data[:length])
    assert rest(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, bytes(10240), b"\x1f\x8b\x08"])
def test_a_file_that_is_not_an_archive_is_refused(data: bytes, loaded: Loaded) -> None:
    with pytest.raises(InvalidRequest):
        loaded(data)


def test_a_link_out_of_the_archive_is_refused(loaded: Loaded, make: Any) -> None:
    with pytest.raises(InvalidRequest):
        loaded(make.pack(make.docker(make.layer("1")), {"x": "../../etc/passwd"}))


def test_a_failure_keeps_existing_images(store: ImageStore, loaded: Loaded, make: Any) -> None:
    loaded(make.pack(make.docker(make.layer("1"))))
    files = make.docker(make.layer("1"), make.layer("2"), names=("other:1",))
    files["1/layer.tar"] = b"damaged"
    with pytest.raises(JaulaError):
        loaded(make.pack(files))
    image = store.resolve("app:1")
    assert (Path(store.layers.path(image.layers[0])) / "etc/note").read_text() == "1"
    assert store.manifest(image).layers[0].digest == make.digest(make.layer("1"))


def test_an_abandoned_load_leaves_no_files(store: ImageStore, make: Any, tmp_path: Path) -> None:
    messages = load(store, io.BytesIO(make.pack(make.docker(make.layer("1")))))
    next(messages)
    messages.close()  # type: ignore[attr-defined]
    assert store.list() == []
    assert rest(tmp_path) == []


def big_layer(*members: layers.Member) -> bytes:
    """Return a layer large enough to be unpacked while it is read."""
    return layers.layer((("filling", b"f" * 1_500_000), *members))


def test_a_large_layer_is_unpacked_while_it_is_read(
    store: ImageStore, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LayerStore, "extract_plain", _in_vain(LayerStore.extract_plain))
    data = big_layer(("etc/note", "large"))
    loaded(layers.image("app:1", (data, layers.digest(data))))
    path = Path(store.layers.path(store.resolve("app:1").layers[0]))
    assert (path / "etc/note").read_text() == "large"


def _in_vain(extract: Any) -> Any:
    def checked(store: LayerStore, tar: Any, diff_id: str) -> Any:
        assert store.has(diff_id)
        return extract(store, tar, diff_id)

    return checked


def test_a_large_unused_tar_may_be_invalid(
    store: ImageStore, loaded: Loaded, tmp_path: Path
) -> None:
    hostile = big_layer(("../escape", "x"))
    data = layers.layer((("a", "x"),))
    archive = layers.image("app:1", (data, layers.digest(data)))
    with tarfile.open(fileobj=io.BytesIO(archive)) as image:
        members = [(m.name, image.extractfile(m).read()) for m in image]  # type: ignore[union-attr]
    loaded(layers.layer([("other.tar", hostile), *members, ("more.tar", big_layer())]))
    assert store.resolve("app:1")
    assert len(rest(tmp_path)) == 4


def test_a_large_layer_that_is_refused_is_refused_once_an_image_needs_it(
    loaded: Loaded, tmp_path: Path
) -> None:
    data = big_layer(("../escape", "x"))
    with pytest.raises(InvalidRequest, match="leaves the layer's directory"):
        loaded(layers.image("app:1", (data, layers.digest(data))))
    assert rest(tmp_path) == []


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
def test_an_archive_truncated_in_a_large_layer_leaves_no_files(
    loaded: Loaded, tmp_path: Path, part: float
) -> None:
    data = big_layer(("etc/note", "x"))
    archive = layers.image("app:1", (data, layers.digest(data)))
    with pytest.raises(InvalidRequest, match="truncated"):
        loaded(archive[: int(len(archive) * part)])
    assert rest(tmp_path) == []


def test_the_same_large_layer_twice(store: ImageStore, loaded: Loaded, tmp_path: Path) -> None:
    data = big_layer(("etc/note", "x"))
    loaded(layers.image("app:1", *[(data, layers.digest(data))] * 2))
    assert len(store.resolve("app:1").layers) == 2
    assert len(rest(tmp_path)) == 4
