"""Saving images as one archive that docker, podman and skopeo read.

Layers are written uncompressed under their diff id, so what was a diff id in the configuration is
the blob's digest in the archive, to the byte; what was loaded compressed is decompressed on the
way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jaula.errors import CorruptState, InvalidRequest
from jaula.images.archive.write import Sink, write_archive
from jaula.images.reference import could_be_id
from jaula.images.store.store import Image, ImageStore, familiar
from jaula.storage.compression import decompress_stream

_PIECE = 1 << 20


def save(store: ImageStore, names: Sequence[str], sink: Sink) -> None:
    """Write the images called ``names`` to ``sink``.

    An image that is asked for by id is saved without names. Raises :class:`NotFound` before
    anything is written.
    """
    if not names:
        raise InvalidRequest("no image to save was named")
    wanted: dict[str, tuple[Image, list[str]]] = {}
    for name in names:
        image = store.resolve(name)
        _, chosen = wanted.setdefault(image.id, (image, []))
        if not could_be_id(name) or familiar(name) in image.names:
            chosen.extend(n for n in image.names if n == familiar(name) and n not in chosen)
    sources: dict[str, str] = {}
    images = []
    for image, chosen in wanted.values():
        manifest = store.manifest(image)
        sizes = [store.layers.info(layer).tar_size for layer in image.layers]
        for layer, descriptor in zip(image.layers, manifest.layers, strict=True):
            sources[layer] = descriptor.digest
        images.append(
            (store.config_bytes(image), list(zip(image.layers, sizes, strict=True)), chosen)
        )
    write_archive(sink, images, lambda layer: _pieces(store, sources[layer], layer))


def _pieces(store: ImageStore, blob: str, layer: str) -> Iterator[bytes]:
    """The uncompressed bytes of a layer, exactly as many as were counted when it was unpacked."""
    left = store.layers.info(layer).tar_size
    with store.blobs.open(blob) as file:
        stream, _ = decompress_stream(file)
        buffer = memoryview(bytearray(_PIECE))
        while count := stream.readinto(buffer) or 0:
            left -= count
            yield bytes(buffer[:count])
    if left:
        raise CorruptState(f"layer {layer} is damaged: its blob {blob} has another length")
