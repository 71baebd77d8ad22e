"""Repair an image from the intact parts of it.

Layers can be unpacked again from their blobs, which are stored as received. Documents and blobs
cannot be recreated: the image has to be pulled or loaded again.
"""

from __future__ import annotations

from jaula.errors import CorruptState
from jaula.images.store.image_catalog import check_document
from jaula.images.store.image_store import ImageStore
from jaula.spec.image_documents import Descriptor, Manifest, decode

Pairs = list[tuple[Descriptor, str]]


def layer_pairs(store: ImageStore, target: str) -> Pairs:
    """Return the blob and the diff id of each layer of a stored manifest, base first.

    Of an index these are the layers of each image that the store holds.

    :raises CorruptState: if manifest or configuration is damaged.
    """
    return [pair for manifest in store.held_images(target) for pair in _pairs(store, manifest)]


def _pairs(store: ImageStore, manifest: str) -> Pairs:
    document = decode(store.blobs.document(manifest), Manifest, f"manifest {manifest}")
    config = document.config
    diff_ids = check_document(
        store.blobs.document(config.digest, config.size), config.digest
    ).rootfs.diff_ids
    if len(diff_ids) != len(document.layers):
        raise CorruptState(f"manifest {manifest} and its configuration disagree about the layers")
    return list(zip(document.layers, diff_ids, strict=True))


def check(store: ImageStore, manifest: str) -> None:
    """Check that :func:`repair` would succeed.

    :raises CorruptState: if a required blob is missing or truncated.
    """
    for blob, layer in layer_pairs(store, manifest):
        if not store.layers.is_intact(layer) and store.blobs.size(blob.digest) != blob.size:
            raise CorruptState(f"the blob {blob.digest} is missing or truncated")


def repair(store: ImageStore, manifest: str) -> None:
    """Unpack the missing and damaged layers and add the image to the catalog again."""
    check(store, manifest)
    for blob, layer in layer_pairs(store, manifest):
        if not store.layers.is_intact(layer):
            unpack(store, blob.digest, layer)
    store.reload_manifest(manifest)


def unpack(store: ImageStore, blob: str, layer: str) -> None:
    """Unpack one layer from its blob, replacing an incomplete copy of the layer.

    :raises InvalidRequest: if the blob does not match its digests.
    """
    with store.lease((blob, layer)), store.blobs.open(blob) as file:
        store.layers.check(file, layer, repair=True)
