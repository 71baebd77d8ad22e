"""Images, their blobs and layers: damaged, missing, of no use to anyone, half-made."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from jaula.engine.fsck.finding import Finding, FsckInputs
from jaula.errors import JaulaError
from jaula.images.store import repair as store_repair
from jaula.images.store.catalog import Image, short
from jaula.images.store.store import ImageStore

_AGAIN = "pull or load it again, or remove it with `jaula rmi`"


def check(facts: FsckInputs) -> Iterator[Finding]:
    """What can be seen without reading every byte: that is ``image verify``'s."""
    store = facts.parts.images
    for manifest, reason in store.damaged().items():
        yield _damaged(store, manifest, reason)
    for image in store.list():
        yield from _incomplete(store, image, facts)
    layers, blobs = store.garbage()
    for kind, digests in (("layer", layers), ("blob", blobs)):
        for digest in digests:
            yield Finding(kind, digest, "no image needs it", "it is removed", store.collect)
    for half in store.layers.incomplete(facts.begun):
        remove = partial(store.layers.remove_incomplete, half)
        yield Finding("layer", half, "it was never finished", "it is removed", remove)
    for half in store.blobs.incomplete(facts.begun):
        remove = partial(store.blobs.remove_incomplete, half)
        yield Finding("blob", half, "it was never finished", "it is removed", remove)


def _damaged(store: ImageStore, manifest: str, reason: str) -> Finding:
    name = ", ".join(store.names_of(manifest)) or manifest
    try:
        store_repair.check(store, manifest)
    except JaulaError:
        return Finding("image", name, reason, _AGAIN)
    repair = partial(store_repair.repair, store, manifest)
    return Finding("image", name, reason, "its layers are unpacked again", repair)


def _incomplete(store: ImageStore, image: Image, facts: FsckInputs) -> Iterator[Finding]:
    name = ", ".join(image.names) or short(image.id)
    try:
        pairs = store_repair.layer_pairs(store, image.manifest)
    except JaulaError as error:
        yield Finding("image", name, error.message, _AGAIN)
        return
    for blob, layer in pairs:
        there = store.blobs.size(blob.digest)
        if there is None:
            problem = f"the blob {blob.digest} of a layer is missing: it cannot be saved or pushed"
            yield Finding("image", name, problem, _AGAIN)
        elif there != blob.size:
            problem = f"the blob {blob.digest} has {there} bytes, not {blob.size}"
            yield Finding("image", name, problem, _AGAIN)
        if not store.layers.is_on_disk(layer):
            if there != blob.size:
                advice, repair = _AGAIN, None
            else:
                advice = "it is unpacked again"
                repair = partial(store_repair.unpack, store, blob.digest, layer)
            yield Finding("layer", layer, f"image {name} needs it, and it is gone", advice, repair)
