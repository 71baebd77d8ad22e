"""Save images as one archive that docker, podman and skopeo read.

Layers are written uncompressed under their diff id, so a layer's diff id is also the digest of its
blob in the archive. Compressed layers are decompressed while they are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaula.errors import CorruptState, InvalidRequest
from jaula.images.archive.write import Sink, write_archive
from jaula.images.reference import could_be_id
from jaula.images.store.store import Image, ImageStore, Lease, familiar
from jaula.storage.compression import decompress_stream

_CHUNK = 1 << 20  # bytes


def save(store: ImageStore, names: Sequence[str], sink: Sink) -> None:
    """Write the images called ``names`` to ``sink``.

    An image requested by id is saved without names.

    :raises NotFound: if an image does not exist. Nothing is written then.
    """
    if not names:
        raise InvalidRequest("no image was specified")
    with store.lease() as lease:
        _save(store, names, sink, lease)


def _save(store: ImageStore, names: Sequence[str], sink: Sink, lease: Lease) -> None:
    selected: dict[str, tuple[Image, list[str]]] = {}
    for name in names:
        image = store.pin(lease, name)
        _, tags = selected.setdefault(image.id, (image, []))
        if not could_be_id(name) or familiar(name) in image.names:
            tags.extend(n for n in image.names if n == familiar(name) and n not in tags)
    sources: dict[str, str] = {}
    images = []
    for image, tags in selected.values():
        manifest = store.manifest(image)
        sizes = [store.layers.info(layer).tar_size for layer in image.layers]
        for layer, descriptor in zip(image.layers, manifest.layers, strict=True):
            sources[layer] = descriptor.digest
        images.append(
            (store.config_bytes(image), list(zip(image.layers, sizes, strict=True)), tags)
        )
    write_archive(sink, images, lambda layer: layer_chunks(store, sources[layer], layer))


def layer_chunks(store: ImageStore, blob: str, layer: str) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a layer.

    :raises CorruptState: if their number differs from the one recorded when it was unpacked.
    """
    left = store.layers.info(layer).tar_size
    with store.blobs.open(blob) as file:
        stream, _ = decompress_stream(file)
        buffer = memoryview(bytearray(_CHUNK))
        while count := stream.readinto(buffer) or 0:
            left -= count
            yield bytes(buffer[:count])
    if left:
        raise CorruptState(f"layer {layer} is damaged: its blob {blob} has another length")
