"""Compress the plain layers of an image for a push, and convert those of a build for an export.

The layers of a loaded or imported image are stored as received. Registries keep what they are sent,
so plain layers are compressed first. The image keeps the compressed form, so its next push has
nothing to compress. The image id does not change: it is the digest of the configuration.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from jaula.errors import CorruptState
from jaula.images.registry.cancellation import Cancellation
from jaula.images.store.quota import Quota
from jaula.images.store.store import Image, ImageStore, Lease
from jaula.spec.build import LayerCompression
from jaula.spec.image import (
    CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_TAR,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    Descriptor,
    Manifest,
    encode,
)
from jaula.storage.compression import Source, decompress_stream, zstd_module

_PLAIN = frozenset({LAYER_TAR, DOCKER_LAYER_TAR})
_CHUNK = 1 << 20  # bytes
_LEVEL = 3  # the library's highest; as small as zlib's middle levels
_THREADS = 2
_GZIP_HEADER = 31  # zlib's window bits for a gzip stream without name and time
_ZSTD_LEVELS = (1, 19)  # a compressor of the higher levels takes up to 700 MiB
_MEDIA_TYPES = {"gzip": LAYER_GZIP, "zstd": LAYER_ZSTD, "uncompressed": LAYER_TAR}
_OCI_TYPES = {DOCKER_LAYER_GZIP: LAYER_GZIP, DOCKER_LAYER_TAR: LAYER_TAR}


class BuiltLayer(Protocol):
    """A layer of a build: its diff id, and the blob that holds its archive."""

    @property
    def diff_id(self) -> str: ...
    @property
    def blob(self) -> Descriptor: ...


class _Source(NamedTuple):
    """A blob to convert. ``diff_id`` is the digest of its content, '' if unknown."""

    diff_id: str = ""
    plain: bool = True


def is_plain(manifest: Manifest) -> bool:
    """Return whether at least one layer is an uncompressed tar."""
    return any(layer.media_type in _PLAIN for layer in manifest.layers)


def compress_layers(
    store: ImageStore, image: Image, cancel: Cancellation, quota: Quota | None = None
) -> Image:
    """Compress the plain layers of an image and return the image, under the names that it has.

    The annotations of its manifest stay. The plain layers become garbage; the caller collects it.
    """
    manifest = store.manifest(image)
    plain = list(dict.fromkeys(d.digest for d in manifest.layers if d.media_type in _PLAIN))
    with store.lease(image.layers) as lease:
        packed = _convert_all(
            store, dict.fromkeys(plain, _Source()), LayerCompression(), cancel, lease
        )
        layers = tuple(packed.get(layer.digest, layer) for layer in manifest.layers)
        config = msgspec.structs.replace(manifest.config, media_type=CONFIG)
        document = Manifest(config=config, layers=layers, annotations=manifest.annotations)
        names = [n for n in image.names if n in store.names_of(image.manifest)]
        return store.adopt(encode(document), MANIFEST, names, quota)


def compressed_layers(
    store: ImageStore,
    lease: Lease,
    layers: Sequence[BuiltLayer],
    cancel: Cancellation,
    compression: LayerCompression | None = None,
) -> tuple[Descriptor, ...]:
    """Return blobs of layers in a compression, pinned by ``lease``, which has pinned the layers.

    Plain layers are compressed, compressed ones stay unless it is forced. The media types are
    OCI's. A layer that an image of the store has in gzip form is not compressed again, except with
    a level.

    :raises CorruptState: when a compressed layer does not have its content.
    """
    compression = compression or LayerCompression()
    target = _MEDIA_TYPES[compression.kind]
    sources = {
        layer.diff_id: layer.blob
        for layer in layers
        if (media_type := _oci_type(layer.blob)) != target
        and (compression.force or media_type == LAYER_TAR)
    }
    known = {}
    if target == LAYER_GZIP and compression.level is None:
        known = store.compressed(lease, sources)
    missing = {
        blob.digest: _Source(diff_id, blob.media_type in _PLAIN)
        for diff_id, blob in sources.items()
        if diff_id not in known
    }
    converted = _convert_all(store, missing, compression, cancel, lease)
    blobs = [
        known.get(layer.diff_id)
        or (converted.get(layer.blob.digest) if layer.diff_id in sources else None)
        or layer.blob
        for layer in layers
    ]
    return tuple(msgspec.structs.replace(blob, media_type=_oci_type(blob)) for blob in blobs)


def _oci_type(blob: Descriptor) -> str:
    return _OCI_TYPES.get(blob.media_type, blob.media_type)


def _convert_all(
    store: ImageStore,
    blobs: Mapping[str, _Source],
    compression: LayerCompression,
    cancel: Cancellation,
    lease: Lease,
) -> dict[str, Descriptor]:
    """Convert blobs, by their digests."""

    def work(digest: str) -> Descriptor:
        return _convert(store, digest, blobs[digest], compression, cancel.check, lease)

    if not blobs:
        return {}
    with ThreadPoolExecutor(_THREADS, "registry-compress") as threads:
        return dict(zip(blobs, threads.map(work, blobs), strict=True))


def _convert(
    store: ImageStore,
    digest: str,
    origin: _Source,
    compression: LayerCompression,
    check: Callable[[], None],
    lease: Lease,
) -> Descriptor:
    compressor, content = _compressor(compression), hashlib.sha256()
    with store.blobs.open(digest) as source, store.blobs.writer() as blob:
        # The first bytes of a plain tar are a name, which may look like a compressed stream.
        stream: Source = source if origin.plain else decompress_stream(source)[0]
        while chunk := stream.read(_CHUNK):
            check()
            content.update(chunk)
            blob.write(compressor.compress(chunk))
        blob.write(compressor.flush())
        if origin.diff_id not in ("", f"sha256:{content.hexdigest()}"):
            raise CorruptState(f"layer {origin.diff_id} is damaged: its blob has another content")
        size = blob.size
        lease.pin(blob.digest)
        return Descriptor(_MEDIA_TYPES[compression.kind], blob.commit(), size)


class _Compressor(Protocol):
    """The interface that the compressors of zlib, isal and zstd share."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _NoCompressor:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(compression: LayerCompression) -> _Compressor:
    level = compression.level
    if compression.kind == "uncompressed":
        return _NoCompressor()
    if compression.kind == "zstd":
        factory: Any = zstd_module().ZstdCompressor
        if level is not None:
            factory = partial(factory, level=min(max(level, _ZSTD_LEVELS[0]), _ZSTD_LEVELS[1]))
        return cast(_Compressor, factory())
    if level is not None:
        import zlib

        return zlib.compressobj(level, zlib.DEFLATED, _GZIP_HEADER)
    from isal import isal_zlib

    return cast(_Compressor, isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_HEADER))
