"""Compress the plain layers of an image for a push.

The layers of a loaded or imported image are stored as received. Registries keep what they are sent,
so plain layers are compressed first. The image keeps the compressed form, so its next push has
nothing to compress. The image id does not change: it is the digest of the configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from jaula.images.registry.cancellation import Cancellation
from jaula.images.store.quota import Quota
from jaula.images.store.store import Image, ImageStore, Lease
from jaula.spec.image import (
    CONFIG,
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

        def work(digest: str) -> Descriptor:
            return _compress(store, digest, cancel.check, lease)

        with ThreadPoolExecutor(_THREADS, "registry-compress") as threads:
            packed = dict(zip(plain, threads.map(work, plain), strict=True))
        layers = tuple(packed.get(layer.digest, layer) for layer in manifest.layers)
        config = msgspec.structs.replace(manifest.config, media_type=CONFIG)
        document = Manifest(config=config, layers=layers)
        names = [n for n in image.names if n in store.names_of(image.manifest)]
        return store.adopt(encode(document), MANIFEST, names, quota)


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
