"""Making an image whole again from what is left of it.

Layers can be unpacked once more from their blobs, which are what came. Documents and blobs cannot
be made: they have to come again.
"""

from __future__ import annotations

from jaula.errors import CorruptState
from jaula.images.store.image import check_document
from jaula.images.store.store import ImageStore
from jaula.spec.image import Descriptor, Manifest, decode

Pairs = list[tuple[Descriptor, str]]


def pairs(store: ImageStore, manifest: str) -> Pairs:
    """Blob and diff id of each layer of a stored manifest, base first.

    Raises where manifest or configuration are damaged.
    """
    document = decode(store.blobs.document(manifest), Manifest, f"manifest {manifest}")
    config = document.config
    diff_ids = check_document(
        store.blobs.document(config.digest, config.size), config.digest
    ).rootfs.diff_ids
    if len(diff_ids) != len(document.layers):
        raise CorruptState(f"manifest {manifest} and its configuration disagree about the layers")
    return list(zip(document.layers, diff_ids, strict=True))


def check(store: ImageStore, manifest: str) -> None:
    """Raise where :func:`mend` would: a blob is needed and is not there."""
    for blob, layer in pairs(store, manifest):
        if not store.layers.is_on_disk(layer) and store.blobs.size(blob.digest) != blob.size:
            raise CorruptState(f"the blob {blob.digest} is missing or cut off")


def mend(store: ImageStore, manifest: str) -> None:
    """Unpack the layers that are missing, and take the image in."""
    check(store, manifest)
    for blob, layer in pairs(store, manifest):
        if not store.layers.is_on_disk(layer):
            unpack(store, blob.digest, layer)
    store.read_again(manifest)


def unpack(store: ImageStore, blob: str, layer: str) -> None:
    """Unpack one layer from its blob in the place of what is there of it.

    Raises :class:`InvalidRequest` where the blob is not what it was.
    """
    with store.pinned((blob, layer)), store.blobs.open(blob) as file:
        store.layers.check(file, layer, repair=True)
