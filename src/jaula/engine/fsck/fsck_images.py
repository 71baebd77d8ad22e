"""Images, their blobs and layers: damaged, missing, unused, unfinished."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from jaula.engine.fsck.problem import FsckInputs, Problem
from jaula.errors import JaulaError, NotFound
from jaula.images.store import repair as store_repair
from jaula.images.store.image_catalog import Image, short
from jaula.images.store.image_store import ImageStore
from jaula.spec.image_documents import layer_name

_ADVICE = "pull or load it again, or remove it with `jaula rmi`"


def check(inputs: FsckInputs) -> Iterator[Problem]:
    """Check what needs no reading of every byte; ``image verify`` does that."""
    store = inputs.services.images
    for manifest, reason in store.damaged().items():
        yield _damaged_image(store, manifest, reason)
    for image in store.list():
        yield from _incomplete_image(store, image)
    layers, blobs = store.garbage()
    for kind, digests in (("layer", layers), ("blob", blobs)):
        for digest in digests:
            yield Problem(kind, digest, "no image uses it", "it is removed", store.collect)
    for name in store.layers.incomplete(inputs.engine_start):
        remove = partial(store.layers.remove_incomplete, name)
        yield Problem("layer", name, "it is unfinished", "it is removed", remove)
    for name in store.blobs.incomplete(inputs.engine_start):
        remove_blob = partial(store.blobs.remove_incomplete, name)
        yield Problem("blob", name, "it is unfinished", "it is removed", remove_blob)


def _damaged_image(store: ImageStore, manifest: str, reason: str) -> Problem:
    name = ", ".join(store.names_of(manifest)) or manifest
    try:
        store_repair.check(store, manifest)
    except JaulaError:
        return Problem("image", name, reason, _ADVICE)
    repair = partial(store_repair.repair, store, manifest)
    return Problem("image", name, reason, "its layers are unpacked again", repair)


def _incomplete_image(store: ImageStore, image: Image) -> Iterator[Problem]:
    with store.lease() as lease:
        try:
            image = store.pin(lease, image.id)
        except NotFound:
            return  # removed meanwhile
        for each in store.with_siblings(image):
            yield from _missing_parts(store, each)


def _missing_parts(store: ImageStore, image: Image) -> Iterator[Problem]:
    name = ", ".join(image.names) or short(image.id)
    try:
        pairs = store_repair.layer_pairs(store, image.manifest)
    except JaulaError as error:
        yield Problem("image", name, error.message, _ADVICE)
        return
    for blob, layer in pairs:
        stated = layer_name(blob, layer)
        if store.layers.is_lazy(stated) and store.layers.is_intact(stated):
            continue  # it is being fetched
        size = store.blobs.size(blob.digest)
        if size is None:
            problem = (
                f"the blob {blob.digest} of a layer is missing: the image cannot be saved or pushed"
            )
            yield Problem("image", name, problem, _ADVICE)
        elif size != blob.size:
            problem = f"the blob {blob.digest} has {size} bytes, not {blob.size}"
            yield Problem("image", name, problem, _ADVICE)
        if state := store.layers.problem(layer):
            if size != blob.size:
                advice, repair = _ADVICE, None
            else:
                advice = "it is unpacked again"
                repair = partial(store_repair.unpack, store, blob.digest, layer)
            yield Problem(
                "layer", layer, f"it is {state}, and image {name} uses it", advice, repair
            )
