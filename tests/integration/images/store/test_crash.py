"""Kill the process at instructions from the first to the last of an operation on a store.

After every kill the next start has a consistent store: an image is complete or absent, no partial
files remain, and the operation can be repeated.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import layers as by_hand
from harness.engine import PROJECT
from harness.images import archive as pack
from harness.images import file
from harness.index_layouts import index_layout
from harness.scripted_registry import ScriptedRegistry, layer
from jaula.config import Paths
from jaula.images.archive.load_archive import load
from jaula.images.store.image_store import ImageStore
from jaula.images.store.verify_images import Verification
from jaula.spec.image_documents import Platform
from jaula.storage.drivers.driver_choice import open_driver
from jaula.storage.erofs import chunks
from jaula.storage.layers.layer_store import LayerFormat, LayerStore

SAMPLES = 12
SLOW = pytest.mark.slow
BASE = by_hand.layer((("etc/base", "b" * 5000), ("bin/a", "x"), ("bin/b", "hard", "bin/a")))
TOP = by_hand.layer((("etc/top", "t" * 70_000), ("etc/.wh.base", ""), ("usr/deep/er", "dir")))
OTHER = by_hand.layer((("opt/other", "o" * 3000),))


def described(*data: bytes) -> list[tuple[bytes, str]]:
    return [(each, by_hand.digest(each)) for each in data]


def killed_at(directory: Path, step: int, *words: str, format: str = "directory") -> int:
    """Run the operation; return the number of instructions it took, or -9."""
    done = subprocess.run(
        [sys.executable, "-m", "harness.crash_injection", str(directory), str(step), *words],
        env=os.environ
        | {"PYTHONPATH": f"{PROJECT}/src:{PROJECT}/tests", "JAULA_LAYER_FORMAT": format},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, -9), done.stderr
    return int(done.stdout) if done.returncode == 0 else -9


def moments(total: int) -> list[int]:
    """Return the first and the last instruction, and some random ones between them."""
    rest = random.Random().sample(range(2, total), min(SAMPLES - 2, total - 2))
    return sorted({1, total - 1, *rest})


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store with two images that share their base."""
    directory = tmp_path / "filled"
    store = opened(directory)
    for name, top in (("one:1", TOP), ("two:1", OTHER)):
        place = tmp_path / "archive.tar"
        place.write_bytes(by_hand.image(name, *described(BASE, top)))
        with place.open("rb") as file:
            list(load(store, file))
    return directory


def opened(directory: Path, format: LayerFormat = "directory") -> ImageStore:
    paths = Paths(directory / "root", directory / "run")
    return ImageStore(paths, LayerStore(paths, format=format))


def check_whole(directory: Path, *expected: str) -> ImageStore:
    """Start on the store as an engine does, and check everything in it."""
    store = opened(directory)
    assert store.damaged() == {}
    store.sweep()
    paths = Paths(directory / "root", directory / "run")
    assert sorted(p.name for p in paths.images.iterdir()) == ["blobs", "index.json", "oci-layout"]
    verification = Verification(store)
    for image in store.list():
        assert verification.run(image).damages == ()
        assert set(image.names) <= set(expected)
    needed, blobs = store.needed()
    assert set(store.layers.ids()) == needed
    assert set(store.blobs.list()) == blobs
    assert {p.name for p in paths.layers.iterdir()} == {n.removeprefix("sha256:") for n in needed}
    return store


def sampled(
    directory: Path, tmp_path: Path, *words: str, format: str = "directory"
) -> Iterator[tuple[Path, int]]:
    """Yield for each moment the operation, killed on a copy of ``directory``, and the copy."""
    trial = tmp_path / "trial"
    preserving(directory, trial)
    total = killed_at(trial, 0, *words, format=format)
    assert total > 100
    for step in moments(total):
        shutil.rmtree(trial)
        preserving(directory, trial)
        done = killed_at(trial, step, *words, format=format)
        assert done == -9 or step > total // 2, "threads may take fewer instructions, not so few"
        yield trial, step


def names(store: ImageStore) -> set[str]:
    return {name for image in store.list() for name in image.names}


def preserving(directory: Path, target: Path) -> None:
    """Copy with owners, links, devices and attributes."""
    subprocess.run(["cp", "-a", str(directory), str(target)], check=True)


def test_a_load_is_complete_or_absent(filled: Path, tmp_path: Path) -> None:
    archive = tmp_path / "new.tar"
    new = by_hand.layer((("new", "n" * 40_000), ("etc/base", "another")))
    archive.write_bytes(by_hand.image("new:1", *described(BASE, new)))
    for trial, _ in sampled(filled, tmp_path, "load", str(archive)):
        store = check_whole(trial, "one:1", "two:1", "new:1")
        assert names(store) >= {"one:1", "two:1"}
        with archive.open("rb") as file:
            list(load(store, file))
        assert names(check_whole(trial, "one:1", "two:1", "new:1")) == {"one:1", "two:1", "new:1"}


@pytest.mark.slow
def test_a_load_of_an_index_is_complete_or_absent(filled: Path, tmp_path: Path) -> None:
    """The index has an image that the store has already, and a new one."""
    new = by_hand.layer((("new", "n" * 40_000), ("etc/base", "another")))
    archive = tmp_path / "new.tar"
    files = index_layout({"linux/amd64": BASE, "linux/arm64": new}, "new:1")
    archive.write_bytes(pack([file(path, data) for path, data in files.items()]))
    arm = Platform("arm64", "linux")
    for trial, _ in sampled(filled, tmp_path, "load", str(archive)):
        store = check_whole(trial, "one:1", "two:1", "new:1")
        assert names(store) >= {"one:1", "two:1"}
        if "new:1" in names(store):
            assert len(store.images(store.resolve("new:1"))) == 2
        with archive.open("rb") as data:
            list(load(store, data))
        store = check_whole(trial, "one:1", "two:1", "new:1")
        assert store.resolve("new:1", arm).layers == (by_hand.digest(new),)


def test_a_removal_is_complete_or_not_started(filled: Path, tmp_path: Path) -> None:
    for trial, _ in sampled(filled, tmp_path, "remove", "one:1", "two:1"):
        store = check_whole(trial, "one:1", "two:1")
        for name in names(store):
            store.remove(name)
        store = check_whole(trial)
        assert store.layers.ids() == []
        assert store.blobs.list() == {}


@pytest.fixture
def sharing(tmp_path: Path) -> Path:
    """A store with EROFS layers of three images. Each shares chunks with the one before."""
    directory = tmp_path / "sharing"
    store = opened(directory, "erofs")
    for number in range(3):
        place = tmp_path / "archive.tar"
        place.write_bytes(by_hand.image(f"{number}:1", *described(shared_layer(number))))
        with place.open("rb") as file:
            list(load(store, file))
    assert len(list(directory.glob("root/layers/*/blob.*"))) == 2
    return directory


def shared_layer(number: int) -> bytes:
    """Return a layer with a file that the next one has too."""
    files = ((f"f{each}", f"{each}" * 50_000) for each in (number, number + 1))
    return by_hand.layer((*files, (f"own{number}", f"own {number}" * 10_000)))


def check_blobs(directory: Path) -> None:
    """Check that each blob has the chunks of its layers on the disk, and no other block."""
    os.sync()
    used: dict[int, set[int]] = {}
    blocks = {}
    for listed in directory.glob("root/layers/*/chunks"):
        for chunk in chunks.decode(listed.read_bytes()):
            status = listed.with_name(chunks.blob_name(chunk.device)).stat()
            blocks[status.st_ino] = status.st_blocks // 8
            used.setdefault(status.st_ino, set()).update(
                range(chunk.offset // 4096, (chunk.offset + chunk.size + 4095) // 4096)
            )
    assert {inode: len(each) for inode, each in used.items()} == blocks


@pytest.mark.slow
def test_a_load_that_shares_chunks_is_complete_or_absent(sharing: Path, tmp_path: Path) -> None:
    archive = tmp_path / "new.tar"
    archive.write_bytes(by_hand.image("3:1", *described(shared_layer(3))))
    expected = {"0:1", "1:1", "2:1", "3:1"}
    for trial, _ in sampled(sharing, tmp_path, "load", str(archive), format="erofs"):
        store = check_whole(trial, *expected)
        assert names(store) >= expected - {"3:1"}
        check_blobs(trial)
        with archive.open("rb") as file:
            list(load(opened(trial, "erofs"), file))
        assert names(check_whole(trial, *expected)) == expected
        check_blobs(trial)


@pytest.mark.slow
@pytest.mark.parametrize("removed", [("0:1",), ("1:1", "0:1"), ("1:1", "2:1")])
def test_a_removal_frees_what_no_other_layer_shares(
    sharing: Path, tmp_path: Path, removed: tuple[str, ...]
) -> None:
    expected = {"0:1", "1:1", "2:1"}
    for trial, _ in sampled(sharing, tmp_path, "remove", *removed, format="erofs"):
        store = check_whole(trial, *expected)
        assert names(store) >= expected.difference(removed)
        check_blobs(trial)


@pytest.mark.slow
def test_a_repair_that_shares_chunks_can_be_done_again(sharing: Path, tmp_path: Path) -> None:
    from jaula.images.store import repair

    [layer] = opened(sharing).resolve("1:1").layers
    with (sharing / "root/layers" / layer[7:] / "blob").open("r+b") as file:
        file.write(b"damage")
    for trial, _ in sampled(sharing, tmp_path, "repair", "1:1", format="erofs"):
        store = opened(trial, "erofs")
        for manifest in store.damaged():
            repair.repair(store, manifest)
        store.sweep()
        for name in ("1:1", "2:1"):
            image = store.resolve(name)
            for blob, diff_id in repair.layer_pairs(store, image.manifest):
                repair.unpack(store, blob.digest, diff_id)
        check_whole(trial, "0:1", "1:1", "2:1")
        check_blobs(trial)


def test_a_name_always_belongs_to_an_image(filled: Path, tmp_path: Path) -> None:
    for trial, _ in sampled(filled, tmp_path, "tag", "one:1", "two:1"):
        store = check_whole(trial, "one:1", "two:1")
        assert names(store) == {"one:1", "two:1"}
        assert len(store.list()) == 2


def test_a_repair_that_was_cut_off_can_be_done_again(filled: Path, tmp_path: Path) -> None:
    from jaula.images.store import repair

    store = opened(filled)
    top = store.resolve("one:1").layers[1]
    (Path(store.layers.path(top)) / "etc/top").write_text("changed")
    for trial, _ in sampled(filled, tmp_path, "repair", "one:1"):
        store = opened(trial)
        for manifest in store.damaged():
            repair.repair(store, manifest)
        image = store.resolve("one:1")
        for blob, diff_id in repair.layer_pairs(store, image.manifest):
            repair.unpack(store, blob.digest, diff_id)
        assert names(check_whole(trial, "one:1", "two:1")) == {"one:1", "two:1"}


def test_a_pull_is_complete_or_absent(filled: Path, tmp_path: Path) -> None:
    from harness.puller import Puller

    with ScriptedRegistry(layer("first", 200_000), layer("second")) as registry:
        name = f"{registry.name}/box:1"
        for trial, _ in sampled(filled, tmp_path, "pull", name):
            store = check_whole(trial, "one:1", "two:1", name)
            assert names(store) >= {"one:1", "two:1"}
            Puller(trial).pull(name)
            assert name in names(check_whole(trial, "one:1", "two:1", name))


@pytest.fixture
def on_disk(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if kind != "btrfs":
        return tmp_path
    return Path(request.getfixturevalue("on_btrfs"))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        pytest.param(words, kind, marks=() if words == ("create",) or kind == "overlay" else SLOW)
        for words in (("create",), ("create", "limited"), ("discard",))
        for kind in ("overlay", "vfs", "btrfs")
    ],
)
def test_a_snapshot_is_complete_or_absent(
    filled: Path, on_disk: Path, kind: str, words: tuple[str, ...]
) -> None:
    if "limited" in words and kind != "btrfs":
        words = words[:1]  # this kernel may not support project quotas
    trial = on_disk / "snapshots"
    preserving(filled, trial)
    size = ("20000000",) if "limited" in words else ()
    arguments = (words[0], kind, "one:1", *size)
    prepare(trial, kind, words[0])
    total = killed_at(trial, 0, *arguments)
    clear(trial, kind)
    for step in moments(total - total // 20):  # not always the same number, by hash seeds
        prepare(trial, kind, words[0])
        assert killed_at(trial, step, *arguments) == -9
        clear(trial, kind)
    check_whole(trial, "one:1", "two:1")


def prepare(directory: Path, kind: str, operation: str) -> None:
    if operation == "discard":
        store = opened(directory)
        paths = Paths(directory / "root", directory / "run")
        made = open_driver(kind, paths, store.layers)
        made.create("old", store.resolve("one:1").layers)
        (paths.container("old") / "own").touch()


def clear(directory: Path, kind: str) -> None:
    """Remove directories without a record, as an engine's start does; nothing may remain."""
    store = opened(directory)
    paths = Paths(directory / "root", directory / "run")
    made = open_driver(kind, paths, store.layers)
    for result in list((paths.root / "containers").iterdir()):
        if made.exists(result.name):
            made.root(result.name)
            made.changes(result.name)
        made.remove(result.name)
        if result.exists():
            shutil.rmtree(result)
    made.sweep()
    assert made.leftovers() == []
    assert list((paths.root / "containers").iterdir()) == []
    expected = {"containers", "images", "layers", kind} - {"overlay"}
    assert {p.name for p in paths.root.iterdir()} <= expected
    if kind != "overlay":
        assert list((paths.root / kind).iterdir()) == []
