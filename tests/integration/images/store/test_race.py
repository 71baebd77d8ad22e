"""Loads, imports, pulls, commits and removals at the same time, on one store.

``JAULA_RACE_SECONDS`` makes the race longer. Every operation succeeds, except that an image may be
removed before another client uses it. At the end the store has nothing that no image needs.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.index_layouts import index_layout
from harness.puller import Puller
from harness.scripted_registry import ScriptedRegistry, layer
from jaula.config import Paths
from jaula.errors import Conflict, NotFound
from jaula.images.archive.import_archive import import_tar
from jaula.images.archive.load_archive import load
from jaula.images.archive.save_archive import save
from jaula.images.store.image_store import ImageStore
from jaula.images.store.verify_images import Verification
from jaula.spec.image_documents import LAYER_TAR, Descriptor, Platform, encode
from jaula.storage.layers.layer_store import LayerStore

SECONDS = float(os.environ.get("JAULA_RACE_SECONDS", "4"))
BASE = layer("base", 60_000)
AMD64, ARM64 = Platform("amd64", "linux"), Platform("arm64", "linux")


def commit(store: ImageStore, parent: str, top: bytes, name: str) -> None:
    """Add a layer to an image, as ``docker commit`` does."""
    with store.pinned_image(parent) as image, store.blobs.writer() as blob:
        descriptors = list(store.manifest(image).layers)
        blob.write(top)
        with store.lease((blob.digest,)):
            store.layers.extract_plain(blob.file, blob.digest)
            blob.commit()
            descriptors.append(Descriptor(LAYER_TAR, blob.digest, blob.size))
            diff_ids = (*image.layers, blob.digest)
            document: dict[str, Any] = {
                "architecture": image.document.architecture,
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }
            made = store.add(encode(document), descriptors, [name])
            check(store, made.id)


def check(store: ImageStore, ref: str) -> None:
    """Check that every part of an image exists. The image may be removed before."""
    try:
        with store.pinned_image(ref) as image:
            for blob in store.manifest(image).layers:
                assert store.blobs.size(blob.digest) == blob.size
            for diff_id in image.layers:
                assert store.layers.is_on_disk(diff_id)
    except NotFound:
        return


def test_what_arrives_beside_removals_is_complete(tmp_path: Path, make: Any) -> None:
    puller = Puller(tmp_path)
    store = puller.store
    archive = make.pack(make.docker(BASE, layer("loaded"), names=("loaded:1",)))
    layers = {"linux/amd64": BASE, "linux/arm64": layer("arm")}
    indexed = make.pack(index_layout(layers, "indexed:1"))
    errors: list[BaseException] = []
    counts: dict[str, int] = {}
    end = time.monotonic() + SECONDS

    with ScriptedRegistry(BASE, layer("one")) as one, ScriptedRegistry(BASE, layer("two")) as two:
        pulled = (f"{one.name}/box:1", f"{two.name}/box:1")

        def pull(number: int) -> Callable[[], None]:
            client = Puller.__new__(Puller)
            client.__dict__.update(puller.__dict__, messages=[])
            return lambda: check(store, client.pull(pulled[number]).id)

        def load_archive() -> None:
            list(load(store, io.BytesIO(archive)))
            check(store, "loaded:1")

        def load_index() -> None:
            only = random.choice(((), (AMD64,), (ARM64,)))
            list(load(store, io.BytesIO(indexed), platforms=only))
            for platform in only:
                check(store, store.resolve("indexed:1", platform).id)

        def remove_platform() -> None:
            time.sleep(random.random() / 100)
            with suppress(Conflict):  # it is the last one
                platform = random.choice((AMD64, ARM64))
                store.remove_platforms("indexed:1", [platform], in_use=lambda id: None)

        def import_layer() -> None:
            check(store, import_tar(store, io.BytesIO(BASE), "imported:1").id)

        def commit_layer() -> None:
            parent = random.choice((*pulled, "loaded:1", "imported:1"))
            commit(store, parent, layer(f"top {random.randrange(5)}"), "committed:1")

        def save_image() -> None:
            digest = hashlib.sha256()
            save(store, [random.choice((*pulled, "loaded:1", "indexed:1"))], digest.update)

        def remove() -> None:
            time.sleep(random.random() / 50)
            store.remove(random.choice([image.id for image in store.list()] or ["none"]))

        def run(name: str, work: Callable[[], None]) -> None:
            while time.monotonic() < end and not errors:
                try:
                    work()
                except NotFound as error:
                    absent = "No such image", "image with reference indexed:1 was found but"
                    if not error.message.startswith(absent):
                        errors.append(error)
                except BaseException as error:  # noqa: BLE001 - reported by the test
                    errors.append(error)
                else:
                    counts[name] = counts.get(name, 0) + 1

        works = [pull(0), pull(1), load_archive, import_layer, commit_layer, save_image]
        works += [load_index, remove_platform, remove, remove]
        threads = [
            threading.Thread(target=run, args=(f"{number}", work))
            for number, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    assert len(counts) == len(works), counts
    verification = Verification(store)
    for image in store.list():
        assert verification.run(image).damages == ()
    store.collect()
    needed, blobs = store.needed()
    assert set(store.layers.ids()) == needed
    assert set(store.blobs.list()) == blobs
    paths = Paths(tmp_path / "root", tmp_path / "run")
    assert ImageStore(paths, LayerStore(paths)).damaged() == {}
