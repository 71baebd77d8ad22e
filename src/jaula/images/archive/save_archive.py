"""Save images as one archive that docker, podman and skopeo read.

Layers of an image are written uncompressed under their diff id, so a layer's diff id is also the
digest of its blob in the archive. Compressed layers are decompressed while they are written.

An index is written unchanged with all of its images that the store has, so that it can be loaded
as the same index. Its layers stay compressed, since their digests are part of it. One platform of
an index is written like an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from jaula.errors import CorruptState, InvalidRequest, NotFound
from jaula.images.archive.write import ArchivedIndex, Sink, write_archive
from jaula.images.reference import could_be_id
from jaula.images.store.image_store import Image, ImageStore, Lease, familiar
from jaula.spec.image_documents import Platform
from jaula.storage.compression import Source
from jaula.storage.decompressor import Decompressor

_CHUNK = 1 << 20  # bytes


def save(
    store: ImageStore, names: Sequence[str], sink: Sink, platforms: Sequence[Platform] = ()
) -> None:
    """Write the images called ``names`` to ``sink``, for all platforms or for ``platforms``.

    An image requested by id is saved without names.

    :raises NotFound: if an image does not exist, or not for a platform. Nothing is written then.
    """
    if not names:
        raise InvalidRequest("no image was specified")
    with store.lease() as lease:
        _save(store, names, sink, lease, platforms)


def _save(
    store: ImageStore,
    names: Sequence[str],
    sink: Sink,
    lease: Lease,
    platforms: Sequence[Platform],
) -> None:
    selected: dict[str, tuple[list[Image], list[str]]] = {}
    checked: set[str] = set()
    for name in names:
        images = _pinned(store, lease, name, platforms)
        whole = store.index(images[0].target) is not None and len(platforms) != 1
        key = images[0].target if whole else images[0].id
        chosen = images if platforms or not whole else store.images(images[0])
        if images[0].target not in checked:  # each covers all images of an index
            store.wait_whole(images[0])
            store.check_blobs(images[0])
            checked.add(images[0].target)
        _, tags = selected.setdefault(key, (chosen, []))
        known = images[0].names
        if not could_be_id(name) or familiar(name) in known:
            tags.extend(n for n in known if n == familiar(name) and n not in tags)
    sources: dict[str, str] = {}
    archived: list[tuple[bytes, list[tuple[str, int]], list[str]]] = []
    indexes = []
    for key, (images, tags) in selected.items():
        if key == images[0].target and store.index(key) is not None:
            indexes.append(_index(store, images, tags))
            continue
        image = images[0]
        manifest = store.manifest(image)
        sizes = [store.layers.info(layer).tar_size for layer in image.layers]
        for layer, descriptor in zip(image.layers, manifest.layers, strict=True):
            sources[layer] = descriptor.digest
        archived.append(
            (store.config_bytes(image), list(zip(image.layers, sizes, strict=True)), tags)
        )
    write_archive(
        sink,
        archived,
        lambda layer: layer_chunks(store, sources[layer], layer),
        indexes,
        lambda blob: blob_chunks(store, blob),
    )


def _pinned(
    store: ImageStore, lease: Lease, name: str, platforms: Sequence[Platform]
) -> list[Image]:
    """Return the images of a name for some platforms, or the one for this machine, pinned.

    The first one is pinned with all others of its index, in which the rest are looked up.
    """
    first = store.pin(lease, name, platforms[0] if platforms else None)
    ref = first.target if store.index(first.target) is not None else name
    return [first, *(store.resolve(ref, platform) for platform in platforms[1:])]


def _index(store: ImageStore, images: Sequence[Image], tags: Sequence[str]) -> ArchivedIndex:
    """Return an index with some of its images and the attestations of these."""
    index = store.index(images[0].target)
    if index is None:
        raise NotFound(f"No such image: {images[0].target}")
    chosen = dict.fromkeys(image.manifest for image in images)
    about = {e.descriptor.digest for e in index.tree.entries if e.subject in chosen}
    blobs = dict.fromkeys((images[0].target, *(nested.digest for nested in index.tree.nested)))
    for digest in (*chosen, *(a for a in index.artifacts if a in about)):
        manifest = store.document(digest)
        parts = (manifest.config, *manifest.layers)
        blobs |= dict.fromkeys((digest, *(part.digest for part in parts)))
    return ArchivedIndex(
        store.descriptor(images[0]),
        tuple((blob, store.blobs.size(blob) or 0) for blob in blobs),
        images[0].id,
        store.layers_of(images[0].manifest),
        tuple(tags),
    )


def blob_chunks(store: ImageStore, digest: str) -> Iterator[bytes]:
    """Yield the bytes of a blob as it is stored."""
    with store.blobs.open(digest) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def layer_chunks(store: ImageStore, blob: str, layer: str) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a layer.

    :raises CorruptState: if their number differs from the one recorded when it was unpacked.
    """
    left = store.layers.info(layer).tar_size
    with store.blobs.open(blob) as file, Decompressor(f"blob {blob}") as decompressor:
        # The digest says whether the blob is the layer itself, whatever its content begins with.
        stream = cast(Source, file if blob == layer else decompressor.stream(file)[0])
        while chunk := stream.read(_CHUNK):
            left -= len(chunk)
            yield chunk
    if left:
        raise CorruptState(f"layer {layer} is damaged: its blob {blob} has another length")
