"""Layers compressed for a push, where an image has them as plain tars.

An image that was loaded or imported has its layers as they came. Registries keep what they are
sent, so plain layers are compressed first; the image is kept in that form from then on, and its
next push finds everything done. Its id does not change: that is the configuration's digest.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec

from jaula.images.registry.cancellation import Cancellation
from jaula.images.store.store import Image, ImageStore
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
_PIECE = 1 << 20
_LEVEL = 3  # the strongest of the library, as small as zlib's middle ones
_AT_ONCE = 2
_GZIP_HEADER = 31  # zlib's window bits for a gzip stream: no name, no time in it


def is_plain(manifest: Manifest) -> bool:
    """Whether a layer is an uncompressed tar."""
    return any(layer.media_type in _PLAIN for layer in manifest.layers)


def compressed(store: ImageStore, image: Image, cancel: Cancellation) -> Image:
    """The same image with its layers compressed, under the names that it has."""
    manifest = store.manifest(image)
    plain = list(dict.fromkeys(d.digest for d in manifest.layers if d.media_type in _PLAIN))
    with ExitStack() as pins:
        pins.enter_context(store.pinned(image.layers))

        def work(digest: str) -> Descriptor:
            return _compress(store, digest, cancel.check, pins)

        with ThreadPoolExecutor(_AT_ONCE, "registry-compress") as threads:
            made = dict(zip(plain, threads.map(work, plain), strict=True))
        layers = tuple(made.get(layer.digest, layer) for layer in manifest.layers)
        config = msgspec.structs.replace(manifest.config, media_type=CONFIG)
        document = Manifest(config=config, layers=layers)
        own = [n for n in image.names if store.resolve(n).manifest == image.manifest]
        kept = store.adopt(encode(document), MANIFEST, own)
    store.collect()
    return kept


def _compress(
    store: ImageStore, digest: str, check: Callable[[], None], pins: ExitStack
) -> Descriptor:
    from isal import isal_zlib

    packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_HEADER)
    with store.blobs.open(digest) as source, store.blobs.writer() as blob:
        while piece := source.read(_PIECE):
            check()
            blob.write(packer.compress(piece))
        blob.write(packer.flush())
        size = blob.size
        pins.enter_context(store.pinned((blob.digest,)))
        return Descriptor(LAYER_GZIP, blob.commit(), size)
