"""Every kind of damage to a layer or blob is detected, and repaired if possible."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import layers as by_hand
from jaula.config import Paths
from jaula.errors import CorruptState, NotFound
from jaula.images.archive.load_archive import load
from jaula.images.store import repair
from jaula.images.store.image_catalog import Image
from jaula.images.store.image_store import ImageStore
from jaula.images.store.verify_images import Damage, Verification
from jaula.storage.layers.layer_store import LayerStore

MEMBERS: tuple[by_hand.Member, ...] = (
    ("etc", "dir", {"mode": 0o755}),
    ("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
    ("etc/empty", ""),
    ("bin/tool", "program", {"mode": 0o4755, "pax_headers": {"SCHILY.xattr.user.a": "b"}}),
    ("bin/same", "hard", "bin/tool"),
    ("lib", "link", "usr/lib"),
    ("null", "char", {"devmajor": 1, "devminor": 3}),
    ("var/cache", "dir"),
    ("var/cache/big", b"x" * 3_000_000),
    ("opt/.wh.gone", ""),
    ("srv", "dir"),
    ("srv/.wh..wh..opq", ""),
)
Spoil = Callable[[Path], object]


@pytest.fixture
def image(store: ImageStore) -> Image:
    data = by_hand.layer(MEMBERS)
    archive = by_hand.image("app:1", (data, by_hand.digest(data)))
    list(load(store, io.BytesIO(archive)))
    return store.resolve("app:1")


@pytest.fixture
def root(store: ImageStore, image: Image) -> Path:
    return Path(store.layers.path(image.layers[0]))


def damages(store: ImageStore, image: Image) -> tuple[Damage, ...]:
    return Verification(store).run(image).damages


def test_an_unchanged_image_is_intact(store: ImageStore, image: Image, paths: Paths) -> None:
    result = Verification(store).run(image)
    assert (result.blobs, result.layers, result.damages) == (3, 1, ())
    assert len(list(paths.layers.iterdir())) == 1


def a_byte(root: Path) -> None:
    with (root / "var/cache/big").open("r+b") as file:
        before = os.fstat(file.fileno())
        file.seek(2_500_000)
        file.write(b"y")
        file.flush()
        os.utime(file.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))


def not_a_link(root: Path) -> None:
    facts = (root / "bin/tool").stat()
    (root / "bin/same").unlink()
    shutil.copy2(root / "bin/tool", root / "bin/same")
    os.setxattr(root / "bin/same", "user.a", b"b")
    (root / "bin/same").chmod(0o4755)
    os.utime(root / "bin/same", ns=(facts.st_mtime_ns, facts.st_mtime_ns))


def other_link(root: Path) -> None:
    facts = (root / "lib").lstat()
    (root / "lib").unlink()
    (root / "lib").symlink_to("usr/lib64")
    os.utime(root / "lib", ns=(facts.st_mtime_ns, facts.st_mtime_ns), follow_symlinks=False)


def other_kind(root: Path) -> None:
    shutil.rmtree(root / "var/cache")
    (root / "var/cache").write_text("a file")


@pytest.mark.parametrize(
    ("spoil", "path", "problem"),
    [
        (a_byte, "/var/cache/big", "its content differs"),
        (lambda r: (r / "etc/passwd").chmod(0o600), "/etc/passwd", "its mode is 0o600, not 0o644"),
        (lambda r: os.chown(r / "etc/empty", 5, 0), "/etc/empty", "its owner is 5:0, not 0:0"),
        (lambda r: os.chown(r / "lib", 5, 6, follow_symlinks=False), "/lib", "its owner is 5:6"),
        (
            lambda r: os.setxattr(r / "bin/tool", "user.a", b"c"),
            "/bin/tool",
            "its extended attributes differ",
        ),
        (
            lambda r: os.setxattr(r / "etc", "security.capability", CAPABILITY),
            "/etc",
            "its extended attributes differ",
        ),
        (
            lambda r: os.removexattr(r / "srv", "trusted.overlay.opaque"),
            "/srv",
            "its extended attributes differ",
        ),
        (lambda r: (r / "etc/more").touch(), "/etc/more", "it is not in the layer"),
        (lambda r: (r / "etc/more").mkdir(), "/etc/more", "it is not in the layer"),
        (lambda r: (r / "etc/empty").unlink(), "/etc/empty", "it is missing"),
        (lambda r: shutil.rmtree(r / "var"), "/var", "it is missing"),
        (lambda r: (r / "opt/gone").unlink(), "/opt/gone", "it is missing"),
        (lambda r: os.link(r / "etc/passwd", r / "etc/2"), "/etc/passwd", "it has 2 names, not 1"),
        (not_a_link, "/bin/tool", "it has 1 names, not 2"),
        (other_link, "/lib", "its link target differs"),
        (other_kind, "/var/cache", "it is a file, not a directory"),
        (lambda r: os.utime(r / "etc/passwd", (1, 1)), "/etc/passwd", "its time differs"),
        (lambda r: os.truncate(r / "etc/passwd", 3), "/etc/passwd", "it has 3 bytes, not 22"),
    ],
)
def test_a_changed_layer_is_detected_and_repaired(
    store: ImageStore, image: Image, root: Path, spoil: Spoil, path: str, problem: str
) -> None:
    spoil(root)
    result = damages(store, image)
    assert any(d.path == path and d.problem.startswith(problem) for d in result), result
    assert {d.kind for d in result} == {"layer"}
    blob = store.manifest(image).layers[0].digest
    repair.unpack(store, blob, image.layers[0])
    assert damages(store, image) == ()


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def test_an_inserted_link_is_not_followed_outside(
    store: ImageStore, image: Image, root: Path, tmp_path: Path
) -> None:
    shutil.rmtree(root / "etc")
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "etc").symlink_to(outside)
    result = damages(store, image)
    assert [(d.path, d.problem) for d in result if d.path == "/etc"] == [
        ("/etc", "it is a symbolic link, not a directory")
    ]
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["manifest", "config", "layer"])
def test_a_damaged_blob_is_detected(
    store: ImageStore, image: Image, paths: Paths, kind: str
) -> None:
    digest = {
        "manifest": image.manifest,
        "config": image.id,
        "layer": store.manifest(image).layers[0].digest,
    }[kind]
    blob = paths.images / "blobs/sha256" / digest.removeprefix("sha256:")
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    result = damages(store, image)
    reported = "blob" if kind == "layer" else kind
    assert result[0] == Damage(reported, digest, "its content has another digest")
    blob.unlink()
    assert damages(store, image)[0] == Damage(reported, digest, "it is missing")


def test_a_blob_of_another_layer_repairs_nothing(
    store: ImageStore, image: Image, root: Path, paths: Paths
) -> None:
    (root / "etc/passwd").write_text("changed")
    digest = store.manifest(image).layers[0].digest
    blob = paths.images / "blobs/sha256" / digest.removeprefix("sha256:")
    blob.write_bytes(by_hand.layer((("etc/passwd", "another"),)))
    assert "its blob is damaged" in damages(store, image)[-1].problem
    with pytest.raises(Exception, match="the layer's content has the digest"):
        repair.unpack(store, digest, image.layers[0])
    assert (root / "etc/passwd").read_text() == "changed"


def test_an_image_with_a_missing_layer_is_damaged_until_the_layer_is_extracted_again(
    store: ImageStore, image: Image, root: Path, paths: Paths
) -> None:
    shutil.rmtree(root.parent)
    again = ImageStore(paths, LayerStore(paths))
    with pytest.raises(CorruptState, match=r"image app:1 is damaged: layer .* does not exist"):
        again.resolve("app:1")
    assert again.collect() == []
    repair.repair(again, image.manifest)
    assert damages(again, again.resolve("app:1")) == ()


def test_a_damaged_image_can_be_removed_by_its_name(
    store: ImageStore, image: Image, paths: Paths
) -> None:
    (paths.images / "blobs/sha256" / image.id.removeprefix("sha256:")).unlink()
    again = ImageStore(paths, LayerStore(paths))
    with pytest.raises(NotFound):
        repair.repair(again, image.manifest)
    assert again.remove("app:1")[:2] == [{"Untagged": "app:1"}, {"Deleted": image.manifest}]
    assert list(paths.layers.iterdir()) == []
    assert list((paths.images / "blobs/sha256").iterdir()) == []


def test_layers_of_containers_and_builds_are_compared_alike(
    store: ImageStore, make: Any, loaded: Callable[[bytes], list[str]]
) -> None:
    """Directories that a tar does not list have the time of their unpacking."""
    loaded(make.pack(make.docker(make.layer("a"), make.layer("b"), names=("two:1",))))
    assert damages(store, store.resolve("two:1")) == ()
