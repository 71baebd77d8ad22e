"""Compress the plain layers of an image for a push, and those of a build for an index.

The layers of a loaded or imported image are stored as received. Registries keep what they are sent,
so plain layers are compressed first. The image keeps the compressed form, so its next push has
nothing to compress. The image id does not change: it is the digest of the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec

from jaula.images.registry.cancellation import Cancellation
from jaula.images.store.quota import Quota
from jaula.images.store.store import Image, ImageStore, Lease
from jaula.spec.image import (
    CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_TAR,
    LAYER_GZIP,
    LAYER_TAR,
    MANIFEST,
    Descriptor,
    Manifest,
    encode,
)

_PLAIN = frozenset({LAYER_TAR, DOCKER_LAYER_TAR})
_CHUNK = 1 << 20  # bytes
_LEVEL = 3  # the library's highest; as small as zlib's middle levels
_THREADS = 2
_GZIP_HEADER = 31  # zlib's window bits for a gzip stream without name and time


class BuiltLayer(Protocol):
    """A layer of a build: its diff id, and the blob that holds its archive."""

    @property
    def diff_id(self) -> str: ...
    @property
    def blob(self) -> Descriptor: ...


def is_plain(manifest: Manifest) -> bool:
    """Return whether at least one layer is an uncompressed tar."""
    return any(layer.media_type in _PLAIN for layer in manifest.layers)


def compress_layers(
    store: ImageStore, image: Image, cancel: Cancellation, quota: Quota | None = None
) -> Image:
    """Compress the plain layers of an image and return the image, under the names that it has.

    The plain layers become garbage; the caller collects it.
    """
    manifest = store.manifest(image)
    plain = list(dict.fromkeys(d.digest for d in manifest.layers if d.media_type in _PLAIN))
    with store.lease(image.layers) as lease:
        packed = _compress_all(store, plain, cancel, lease)
        layers = tuple(packed.get(layer.digest, layer) for layer in manifest.layers)
        config = msgspec.structs.replace(manifest.config, media_type=CONFIG)
        document = Manifest(config=config, layers=layers)
        names = [n for n in image.names if n in store.names_of(image.manifest)]
        return store.adopt(encode(document), MANIFEST, names, quota)


def compressed_layers(
    store: ImageStore, lease: Lease, layers: Sequence[BuiltLayer], cancel: Cancellation
) -> tuple[Descriptor, ...]:
    """Return compressed blobs of layers, pinned by ``lease``, which has pinned the layers.

    A layer that an image of the store has in compressed form is not compressed again.
    """
    plain = {layer.diff_id: layer.blob for layer in layers if layer.blob.media_type in _PLAIN}
    known = store.compressed(lease, plain)
    missing = [blob.digest for diff_id, blob in plain.items() if diff_id not in known]
    packed = _compress_all(store, missing, cancel, lease)
    blobs = [
        known.get(layer.diff_id) or packed.get(layer.blob.digest) or layer.blob for layer in layers
    ]
    return tuple(
        msgspec.structs.replace(blob, media_type=LAYER_GZIP)
        if blob.media_type == DOCKER_LAYER_GZIP
        else blob
        for blob in blobs
    )


def _compress_all(
    store: ImageStore, plain: Sequence[str], cancel: Cancellation, lease: Lease
) -> dict[str, Descriptor]:
    def work(digest: str) -> Descriptor:
        return _compress(store, digest, cancel.check, lease)

    if not plain:
        return {}
    with ThreadPoolExecutor(_THREADS, "registry-compress") as threads:
        return dict(zip(plain, threads.map(work, plain), strict=True))


def _compress(
    store: ImageStore, digest: str, check: Callable[[], None], lease: Lease
) -> Descriptor:
    from isal import isal_zlib

    compressor = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_HEADER)
    with store.blobs.open(digest) as source, store.blobs.writer() as blob:
        while chunk := source.read(_CHUNK):
            check()
            blob.write(compressor.compress(chunk))
        blob.write(compressor.flush())
        size = blob.size
        lease.pin(blob.digest)
        return Descriptor(LAYER_GZIP, blob.commit(), size)
