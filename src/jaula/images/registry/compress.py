"""Compress the layers of an image for a push, and convert those of a build for an export.

The layers of a loaded or imported image are stored as received. Registries keep what they are sent,
so plain layers are compressed first. The image keeps the compressed form, so its next push has
nothing to compress. The image id does not change: it is the digest of the configuration.

A client may request another compression. Then the image of the store stays as it is, and what is
pushed is another manifest of it. eStargz adds files to a layer, so the image gets another
configuration too.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from jaula.errors import CorruptState, InvalidRequest
from jaula.images.chunked import estargz, zstd_chunked
from jaula.images.chunked.part_writer import Compress, Output
from jaula.images.registry.cancellation import Cancellation
from jaula.images.store.blobs import BlobWriter
from jaula.images.store.image_quota import Quota
from jaula.images.store.image_store import Image, ImageStore, Lease, short
from jaula.spec.image_documents import (
    CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_TAR,
    ESTARGZ_DIGEST,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
    ZSTD_CHUNKED_DIGEST,
    Descriptor,
    Manifest,
    encode,
)
from jaula.spec.layer_compression import LayerCompression
from jaula.storage.compression import PrefixedStream, Source, zstd_module
from jaula.storage.decompressor import Decompressor
from jaula.storage.tar.raw_reader import RawTarReader

_PLAIN = frozenset({LAYER_TAR, DOCKER_LAYER_TAR})
_CHUNK = 1 << 20  # bytes
_LEVEL = 3  # the library's highest; as small as zlib's middle levels
_THREADS = 2
_GZIP_HEADER = 31  # zlib's window bits for a gzip stream without name and time
_ZSTD_LEVELS = (1, 19)  # a compressor of the higher levels takes up to 700 MiB
_MEDIA_TYPES = {
    "gzip": LAYER_GZIP,
    "zstd": LAYER_ZSTD,
    "estargz": LAYER_GZIP,
    "zstd:chunked": LAYER_ZSTD,
    "uncompressed": LAYER_TAR,
}
_TOC_DIGESTS = {"estargz": ESTARGZ_DIGEST, "zstd:chunked": ZSTD_CHUNKED_DIGEST}
"""The annotations of layers that have a table of contents."""

_OCI_TYPES = {DOCKER_LAYER_GZIP: LAYER_GZIP, DOCKER_LAYER_TAR: LAYER_TAR}


class BuiltLayer(Protocol):
    """A layer of a build: its diff id, and the blob that holds its archive."""

    @property
    def diff_id(self) -> str: ...
    @property
    def blob(self) -> Descriptor: ...


class CompressedLayer(NamedTuple):
    """A layer in a requested compression. The diff id of eStargz is not that of its source."""

    diff_id: str
    blob: Descriptor


Report = Callable[[str, str], None]
"""Receives the short id of a layer and a note about its conversion, from any thread."""


Ready = Callable[[str, Descriptor], None]
"""Receives the diff id of a source layer and the blob that it has from now on, from any thread."""


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
            store, dict.fromkeys(plain, _Source()), LayerCompression(), cancel.check, lease
        )
        layers = tuple(
            packed[layer.digest].blob if layer.digest in packed else layer
            for layer in manifest.layers
        )
        config = msgspec.structs.replace(manifest.config, media_type=CONFIG)
        document = Manifest(config=config, layers=layers, annotations=manifest.annotations)
        names = [n for n in image.names if n in store.names_of(image.manifest)]
        return store.adopt(encode(document), MANIFEST, names, quota, same_image=True)


def convert_image(
    store: ImageStore,
    lease: Lease,
    image: Image,
    compression: LayerCompression,
    check: Callable[[], None],
    report: Report,
    ready: Ready,
) -> Manifest:
    """Convert the layers of an image that ``lease`` has pinned, and pin the new blobs.

    ``ready`` gets each blob as soon as it is stored, those that stay first. ``check`` is called
    often and may raise, and so may ``ready``.

    The returned manifest is OCI's and keeps its annotations.
    """
    manifest = store.manifest(image)
    layers = [
        CompressedLayer(diff_id, blob)
        for diff_id, blob in zip(image.layers, manifest.layers, strict=True)
    ]
    converted = compressed_layers(store, lease, layers, check, compression, report, ready)
    config = with_diff_ids(store.config_bytes(image), [layer.diff_id for layer in converted])
    return Manifest(
        config=Descriptor(CONFIG, store.put(lease, config), len(config)),
        layers=tuple(layer.blob for layer in converted),
        annotations=manifest.annotations,
    )


def with_diff_ids(config: bytes, diff_ids: Sequence[str]) -> bytes:
    """Return an image configuration with other diff ids; the same bytes if they are the same."""
    document = msgspec.json.decode(config)
    if document["rootfs"]["diff_ids"] == list(diff_ids):
        return config
    document["rootfs"]["diff_ids"] = list(diff_ids)
    return msgspec.json.encode(document)


def compressed_layers(
    store: ImageStore,
    lease: Lease,
    layers: Sequence[BuiltLayer],
    check: Callable[[], None],
    compression: LayerCompression | None = None,
    report: Report = lambda layer, note: None,
    ready: Ready = lambda diff_id, blob: None,
) -> tuple[CompressedLayer, ...]:
    """Return layers in a compression, pinned by ``lease``, which has pinned the given ones.

    Plain layers are compressed, compressed ones stay unless it is forced. The media types are
    OCI's. A layer that an image of the store has in gzip form is not compressed again, except with
    a level. A layer that a table of contents cannot describe is compressed without one, which
    ``report`` gets to know. ``check`` is called often and may raise.

    :raises CorruptState: when a compressed layer does not have its content.
    """
    compression = compression or LayerCompression()
    sources = {
        layer.diff_id: layer.blob for layer in layers if is_converted(layer.blob, compression)
    }
    known = {}
    if compression.kind == "gzip" and compression.level is None:
        known = store.compressed(lease, sources)
    missing = {
        blob.digest: _Source(diff_id, blob.media_type in _PLAIN)
        for diff_id, blob in sources.items()
        if diff_id not in known
    }
    for layer in layers:
        if layer.blob.digest not in missing:
            ready(layer.diff_id, known.get(layer.diff_id, layer.blob))
    converted = _convert_all(store, missing, compression, check, lease, report, ready)
    result = []
    for layer in layers:
        new = CompressedLayer(layer.diff_id, known.get(layer.diff_id, layer.blob))
        if layer.diff_id in sources and layer.diff_id not in known:
            new = converted[layer.blob.digest]
        blob = msgspec.structs.replace(new.blob, media_type=_oci_type(new.blob))
        result.append(CompressedLayer(new.diff_id, blob))
    return tuple(result)


def _oci_type(blob: Descriptor) -> str:
    return _OCI_TYPES.get(blob.media_type, blob.media_type)


def is_converted(blob: Descriptor, compression: LayerCompression) -> bool:
    """Return whether a layer is to be converted: it has another form, or no table of contents."""
    annotation = _TOC_DIGESTS.get(compression.kind)
    is_indexed = annotation is None or annotation in blob.annotations
    if _oci_type(blob) == _MEDIA_TYPES[compression.kind] and is_indexed:
        return False
    return compression.force or blob.media_type in _PLAIN


def _convert_all(
    store: ImageStore,
    blobs: Mapping[str, _Source],
    compression: LayerCompression,
    check: Callable[[], None],
    lease: Lease,
    report: Report = lambda layer, note: None,
    ready: Ready = lambda diff_id, blob: None,
) -> dict[str, CompressedLayer]:
    """Convert blobs, by their digests."""
    if not blobs:
        return {}
    # The parts of indexed layers have threads of their own: those of layers wait for them.
    with (
        ThreadPoolExecutor(_THREADS, "registry-compress") as threads,
        ThreadPoolExecutor(_THREADS, "layer-part") as parts,
    ):

        def convert(digest: str, origin: _Source) -> CompressedLayer:
            if compression.kind in _TOC_DIGESTS:
                try:
                    return _index(store, digest, origin, compression, check, lease, parts)
                except InvalidRequest as error:
                    report(
                        short(origin.diff_id or digest),
                        f"Compressing without a table of contents: {error}",
                    )
            return _convert(store, digest, origin, compression, check, lease)

        def work(digest: str) -> CompressedLayer:
            made = convert(digest, blobs[digest])
            ready(blobs[digest].diff_id, made.blob)
            return made

        return dict(zip(blobs, threads.map(work, blobs), strict=True))


def _convert(
    store: ImageStore,
    digest: str,
    origin: _Source,
    compression: LayerCompression,
    check: Callable[[], None],
    lease: Lease,
) -> CompressedLayer:
    compressor, content = _compressor(compression), hashlib.sha256()
    with (
        store.blobs.open(digest) as source,
        store.blobs.writer() as blob,
        Decompressor(f"blob {digest}") as decompressor,
    ):
        # The first bytes of a plain tar are a name, which may look like a compressed stream.
        stream: Source = source if origin.plain else decompressor.stream(source)[0]
        while chunk := stream.read(_CHUNK):
            check()
            content.update(chunk)
            blob.write(compressor.compress(chunk))
        blob.write(compressor.flush())
        return _store(blob, origin, content.hexdigest(), compression, lease, _Written({}))


def _index(
    store: ImageStore,
    digest: str,
    origin: _Source,
    compression: LayerCompression,
    check: Callable[[], None],
    lease: Lease,
    threads: Executor,
) -> CompressedLayer:
    """Convert a layer to a form with a table of contents.

    :raises InvalidRequest: when its table cannot describe it.
    """
    content = hashlib.sha256()
    with (
        store.blobs.open(digest) as source,
        store.blobs.writer() as blob,
        Decompressor(f"blob {digest}") as decompressor,
    ):
        stream = PrefixedStream(b"", source) if origin.plain else decompressor.stream(source)[0]
        reader = RawTarReader(stream, tap=content.update)
        made = _write(compression, reader, blob, threads, check)
        return _store(blob, origin, content.hexdigest(), compression, lease, made)


def _store(
    blob: BlobWriter,
    origin: _Source,
    content: str,
    compression: LayerCompression,
    lease: Lease,
    made: _Written,
) -> CompressedLayer:
    """Pin and commit a blob that was made of a layer whose tar has the SHA-256 ``content``.

    :raises CorruptState: when the layer has another diff id.
    """
    if origin.diff_id not in ("", f"sha256:{content}"):
        raise CorruptState(f"layer {origin.diff_id} is damaged: its blob has another content")
    size = blob.size
    lease.pin(blob.digest)
    descriptor = Descriptor(_MEDIA_TYPES[compression.kind], blob.commit(), size, made.annotations)
    return CompressedLayer(made.diff_id or f"sha256:{content}", descriptor)


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
    if _MEDIA_TYPES[compression.kind] == LAYER_ZSTD:
        return cast(_Compressor, _zstd_compressor(level))
    if level is not None:
        import zlib

        return zlib.compressobj(level, zlib.DEFLATED, _GZIP_HEADER)
    from isal import isal_zlib

    return cast(_Compressor, isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_HEADER))


def _zstd_compressor(level: int | None) -> Any:
    factory = zstd_module().ZstdCompressor
    if level is None:
        return factory()
    return factory(level=min(max(level, _ZSTD_LEVELS[0]), _ZSTD_LEVELS[1]))


# -- forms with a table of contents ---------------------------------------------------------------


class _Written(NamedTuple):
    """A written blob. ``diff_id`` is empty if it is that of the source."""

    annotations: dict[str, str]
    diff_id: str = ""


def _write(
    compression: LayerCompression,
    reader: RawTarReader,
    output: Output,
    threads: Executor,
    check: Callable[[], None],
) -> _Written:
    if compression.kind == "zstd:chunked":
        compress = _frame_compressor(compression.level)
        return _Written(zstd_chunked.write_zstd_chunked(reader, output, compress, threads, check))
    compress = _member_compressor(compression.level)
    made = estargz.write_estargz(reader, output, compress, threads, check)
    return _Written(made.annotations, made.diff_id)


def _frame_compressor(level: int | None) -> Compress:
    """Return a function that compresses data to one zstd frame."""
    local = threading.local()  # the state of a compressor takes longer to create than to use

    def compress(data: bytes | bytearray) -> bytes:
        compressor = getattr(local, "compressor", None)
        if compressor is None:
            compressor = local.compressor = _zstd_compressor(level)
        return cast(bytes, compressor.compress(data, compressor.FLUSH_FRAME))

    return compress


def _member_compressor(level: int | None) -> Compress:
    """Return a function that compresses data to one gzip member without name and time."""
    if level is not None:
        import zlib

        return partial(zlib.compress, level=level, wbits=_GZIP_HEADER)
    from isal import igzip_lib

    return partial(igzip_lib.compress, level=_LEVEL, flag=igzip_lib.COMP_GZIP)
