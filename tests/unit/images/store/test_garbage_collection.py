"""Garbage collection beside everything that stores, names and removes content.

The model drives the real store by explicit steps: a client pins, asks, stores a blob, stores a
layer and names the image in separate steps. A collection lists, decides and deletes in separate
steps. Hypothesis chooses the order, so every interleaving of them can occur.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from jaula.config import Paths
from jaula.errors import Conflict, NotFound
from jaula.images.store.image_store import Garbage, ImageStore, Lease
from jaula.spec.image_documents import (
    CONFIG,
    INDEX,
    LAYER_TAR,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    encode,
)
from jaula.storage.layers.layer_store import LayerInfo, LayerStore

LAYERS = tuple(f"layer {n}".encode() for n in range(2))
STACKS = ((0,), (0, 1), (1,))
NAMES = ("a:1", "b:1")
PLATFORMS = tuple(Platform(name, "linux") for name in ("amd64", "arm64", "s390x"))


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config(layers: Sequence[bytes]) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()


def descriptors(layers: Sequence[bytes]) -> list[Descriptor]:
    return [Descriptor(LAYER_TAR, digest(layer), len(layer)) for layer in layers]


def manifest(layers: Sequence[bytes]) -> bytes:
    document = config(layers)
    described = Descriptor(CONFIG, digest(document), len(document))
    return encode(Manifest(config=described, layers=tuple(descriptors(layers))))


def index() -> bytes:
    """Return an index with each stack as the image for one of the platforms."""
    documents = [manifest([LAYERS[n] for n in stack]) for stack in STACKS]
    listed = [
        Descriptor(MANIFEST, digest(document), len(document), platform=platform)
        for document, platform in zip(documents, PLATFORMS, strict=True)
    ]
    return encode(Index(manifests=tuple(listed)))


def opened(directory: Path) -> ImageStore:
    paths = Paths(directory / "root", directory / "run")
    return ImageStore(paths, LayerStore(paths))


def store_blob(store: ImageStore, data: bytes) -> None:
    with store.blobs.writer() as blob:
        blob.write(data)
        blob.commit()


def store_layer(store: ImageStore, directory: Path, data: bytes) -> None:
    """Store a layer without a tar: collection does not read it."""
    upper = Path(tempfile.mkdtemp(dir=directory))
    store.layers.adopt(str(upper), LayerInfo(digest(data), len(data), len(data)))


@dataclass
class Arrival:
    """A client that stores an image: its lease, and the parts that it relies on."""

    lease: Lease
    layers: tuple[bytes, ...]
    name: str
    unasked: list[bytes] = field(default_factory=list)
    missing_blobs: list[bytes] = field(default_factory=list)
    missing_layers: list[bytes] = field(default_factory=list)
    blobs: set[str] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)


@dataclass
class Collection:
    candidates: tuple[list[str], list[str]]
    garbage: Garbage | None = None


class GarbageCollection(RuleBasedStateMachine):
    """Clients, removals and collections on one store."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="jaula-gc-"))
        self.store = opened(self.directory)
        self.arrivals: list[Arrival] = []
        self.collections: list[Collection] = []

    def teardown(self) -> None:
        try:
            for arrival in self.arrivals:
                arrival.lease.close()
            for collection in self.collections:
                if collection.garbage is not None:
                    self.store.delete(collection.garbage)
            self.store.collect()
            needed, blobs = self.store.needed()
            assert set(self.store.layers.ids()) == needed
            assert set(self.store.blobs.list()) == blobs
            assert self.store.blobs.incomplete(1 << 62) == []
            assert self.store.layers.incomplete(1 << 62) == []
            assert opened(self.directory).damaged() == {}
        finally:
            shutil.rmtree(self.directory)

    # -- clients: pull, load, import, build ----------------------------------------------------

    @precondition(lambda self: len(self.arrivals) < 3)
    @rule(stack=st.sampled_from(STACKS), name=st.sampled_from(NAMES))
    def pin(self, stack: tuple[int, ...], name: str) -> None:
        layers = tuple(LAYERS[n] for n in stack)
        lease = self.store.lease([digest(layer) for layer in layers])
        self.arrivals.append(Arrival(lease, layers, name, list(layers)))

    @precondition(lambda self: len(self.arrivals) < 3)
    @rule(name=st.sampled_from(NAMES), top=st.sampled_from(LAYERS), new=st.sampled_from(NAMES))
    def pin_parent(self, name: str, top: bytes, new: str) -> None:
        """Begin a commit: a layer on top of an image that exists."""
        lease = self.store.lease()
        try:
            parent = self.store.pin(lease, name)
        except NotFound:
            lease.close()
            return
        lease.pin(digest(top))
        below = tuple(layer for id in parent.layers for layer in LAYERS if digest(layer) == id)
        arrival = Arrival(lease, (*below, top) if top not in below else below, new, [top])
        arrival.blobs |= set(parent.layers)
        arrival.directories |= set(parent.layers)
        self.arrivals.append(arrival)

    @precondition(lambda self: any(arrival.unasked for arrival in self.arrivals))
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        arrival = data.draw(st.sampled_from([a for a in self.arrivals if a.unasked]))
        layer = arrival.unasked.pop()
        if self.store.blobs.size(digest(layer)) == len(layer):
            arrival.blobs.add(digest(layer))
        else:
            arrival.missing_blobs.append(layer)
        if self.store.layers.has(digest(layer)):
            arrival.directories.add(digest(layer))
        else:
            arrival.missing_layers.append(layer)

    @precondition(lambda self: any(arrival.missing_blobs for arrival in self.arrivals))
    @rule(data=st.data())
    def receive_blob(self, data: st.DataObject) -> None:
        arrival = data.draw(st.sampled_from([a for a in self.arrivals if a.missing_blobs]))
        layer = arrival.missing_blobs.pop()
        store_blob(self.store, layer)
        arrival.blobs.add(digest(layer))

    @precondition(lambda self: any(arrival.missing_layers for arrival in self.arrivals))
    @rule(data=st.data())
    def unpack_layer(self, data: st.DataObject) -> None:
        arrival = data.draw(st.sampled_from([a for a in self.arrivals if a.missing_layers]))
        layer = arrival.missing_layers.pop()
        store_layer(self.store, self.directory, layer)
        arrival.directories.add(digest(layer))

    @precondition(lambda self: self.complete())
    @rule(data=st.data(), release=st.booleans())
    def name(self, data: st.DataObject, release: bool) -> None:
        """Name an image, which must never fail. Its client may release the lease later."""
        arrival = data.draw(st.sampled_from(self.complete()))
        image = self.store.add(config(arrival.layers), descriptors(arrival.layers), [arrival.name])
        assert arrival.name in image.names
        if release:
            self.abandon(arrival)

    @precondition(lambda self: self.complete())
    @rule(data=st.data(), release=st.booleans())
    def name_index(self, data: st.DataObject, release: bool) -> None:
        """Name an index that has the image, besides those that the store has of it already."""
        arrival = data.draw(st.sampled_from(self.complete()))
        if arrival.layers not in [tuple(LAYERS[n] for n in stack) for stack in STACKS]:
            return
        document, described = manifest(arrival.layers), config(arrival.layers)
        with self.store.lease((digest(document), digest(described))):
            self.store.blobs.put(described)
            self.store.blobs.put(document)
            image = self.store.adopt_index(index(), INDEX, [digest(document)], [arrival.name])
        assert arrival.name in image.names
        assert digest(described) in {each.id for each in self.store.images(image)}
        if release:
            self.abandon(arrival)

    @precondition(lambda self: bool(self.arrivals))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        self.abandon(data.draw(st.sampled_from(self.arrivals)))

    def abandon(self, arrival: Arrival) -> None:
        self.arrivals.remove(arrival)
        arrival.lease.close()

    def complete(self) -> list[Arrival]:
        return [a for a in self.arrivals if not (a.unasked or a.missing_blobs or a.missing_layers)]

    @rule(layer=st.sampled_from(LAYERS))
    def leave_garbage(self, layer: bytes) -> None:
        """Store a layer for an image that is never named, as a client that fails does."""
        with self.store.lease([digest(layer)]):
            store_blob(self.store, layer)
            store_layer(self.store, self.directory, layer)

    # -- removals and collections ----------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self.store.remove(name)

    @rule(name=st.sampled_from(NAMES), platform=st.sampled_from(PLATFORMS))
    def remove_platform(self, name: str, platform: Platform) -> None:
        with contextlib.suppress(NotFound, Conflict):
            self.store.remove_platforms(name, [platform], in_use=lambda id: None)

    @rule(source=st.sampled_from(NAMES), new=st.sampled_from(NAMES))
    def tag(self, source: str, new: str) -> None:
        with contextlib.suppress(NotFound):
            self.store.tag(source, new)

    @precondition(lambda self: len(self.collections) < 2)
    @rule()
    def list_candidates(self) -> None:
        self.collections.append(Collection(self.store.candidates()))

    @precondition(lambda self: any(c.garbage is None for c in self.collections))
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        begun = [c for c in self.collections if c.garbage is None]
        collection = data.draw(st.sampled_from(begun))
        collection.garbage = self.store.detach(collection.candidates)

    @precondition(lambda self: any(c.garbage is not None for c in self.collections))
    @rule()
    def delete(self) -> None:
        collection = next(c for c in self.collections if c.garbage is not None)
        assert collection.garbage is not None
        self.store.delete(collection.garbage)
        self.collections.remove(collection)

    # -- what must hold at every moment ----------------------------------------------------------

    @invariant()
    def images_are_complete(self) -> None:
        for image in self.store.list():
            parts = self.store.parts(image)
            for blob in parts.blobs:
                assert self.store.blobs.size(blob) is not None
            for layer in parts.layers:
                assert self.store.layers.is_on_disk(layer)
                assert self.store.layers.has(layer)

    @invariant()
    def arrivals_keep_what_they_rely_on(self) -> None:
        for arrival in self.arrivals:
            assert all(self.store.blobs.size(blob) is not None for blob in arrival.blobs)
            assert all(self.store.layers.is_on_disk(layer) for layer in arrival.directories)


GarbageCollection.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None
)
TestGarbageCollection = GarbageCollection.TestCase


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return opened(tmp_path)


def test_content_that_arrives_during_a_collection_stays(store: ImageStore, tmp_path: Path) -> None:
    """A client arrives after the collection has read the other pins, and its layer exists."""
    layer = LAYERS[0]
    store_blob(store, layer)
    store_layer(store, tmp_path, layer)
    arrived = threading.Event()
    released = threading.Event()

    def arrive() -> None:
        with store.lease([digest(layer)]):
            if store.blobs.size(digest(layer)) is None:
                store_blob(store, layer)
            if not store.layers.has(digest(layer)):
                store_layer(store, tmp_path, layer)
            arrived.set()
            released.wait()

    thread = threading.Thread(target=arrive)

    def holder() -> tuple[str, ...]:
        if not thread.ident:
            thread.start()
            arrived.wait(0.3)  # a pin waits for the decision
        return ()

    store.hold(holder)
    try:
        store.collect()
        assert arrived.wait(10)
        assert store.blobs.size(digest(layer)) == len(layer)
        assert store.layers.is_on_disk(digest(layer))
    finally:
        released.set()
        thread.join()
    store.collect()
    assert store.layers.ids() == []


def test_a_removed_layer_does_not_stay_in_the_cache(store: ImageStore, tmp_path: Path) -> None:
    """A reader of the layer's document and a removal never leave the layer as present."""
    layer = LAYERS[1]
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            store.layers.size(digest(layer))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(300):
            store_layer(store, tmp_path, layer)
            store.layers.remove(digest(layer))
            assert not store.layers.has(digest(layer))
    finally:
        ended.set()
        thread.join()


def test_a_pinned_image_is_complete_until_its_lease_ends(store: ImageStore, tmp_path: Path) -> None:
    with store.lease([digest(LAYERS[0])]):
        store_blob(store, LAYERS[0])
        store_layer(store, tmp_path, LAYERS[0])
        store.add(config(LAYERS[:1]), descriptors(LAYERS[:1]), ["a:1"])
    with store.pinned_image("a:1") as image:
        store.remove("a:1")
        assert store.config_bytes(image) == config(LAYERS[:1])
        assert store.layers.is_on_disk(digest(LAYERS[0]))
    store.collect()
    assert store.layers.ids() == []
    assert store.blobs.list() == {}


def test_lookups_during_removals_find_an_image_or_none(store: ImageStore, tmp_path: Path) -> None:
    """List, resolve, history and sizes never fail otherwise than with NotFound."""
    with store.lease(digest(layer) for layer in LAYERS):
        for layer in LAYERS:
            store_blob(store, layer)
            store_layer(store, tmp_path, layer)
        ended = threading.Event()
        errors: list[BaseException] = []

        def read() -> None:
            while not ended.is_set():
                try:
                    for image in store.list():
                        store.parts(image)
                        store.layers_of(image.manifest)
                        store.manifest(image)
                    for name in NAMES:
                        store.history(name)
                except NotFound:
                    continue
                except BaseException as error:  # noqa: BLE001 - reported by the test
                    errors.append(error)
                    return

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(60):
                for number, stack in enumerate(STACKS[:2]):
                    layers = [LAYERS[n] for n in stack]
                    store.add(config(layers), descriptors(layers), [NAMES[number]])
                store.tag(NAMES[turn % 2], "other:1")
                for name in (*NAMES, "other:1"):
                    with contextlib.suppress(NotFound):
                        store.remove(name)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    assert errors == []
