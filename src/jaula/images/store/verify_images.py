"""Verify stored images: blobs by digest, layers file by file.

A manifest and a configuration are named by digest, and the configuration names the layers by theirs
(diff ids). A layer is intact if its blob has the digest in the manifest, the uncompressed content
has the digest in the configuration, and the directory equals what unpacking that content gives. For
the last check the layer is unpacked into a second directory, which temporarily takes the same
space, and compared entry by entry.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from jaula.errors import CorruptState, InvalidRequest, NotFound
from jaula.images.store.image_catalog import Image
from jaula.images.store.image_store import ImageStore


class Damage(msgspec.Struct, frozen=True):
    """One problem of an image: ``kind`` is manifest, config, blob or layer.

    ``path`` is a file of a layer, empty if the whole object is meant.
    """

    kind: str
    digest: str
    problem: str
    path: str = ""


Damages = tuple[Damage, ...]


class VerifiedImage(msgspec.Struct, frozen=True):
    """The result for one image: how many blobs and layers were read, and the problems."""

    image: Image
    blobs: int
    layers: int
    damages: Damages = ()


class Verification:
    """Verifies images. Blobs and layers that images share are read once.

    Of an index, every image that the store holds is verified, and its other manifests.
    """

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._blobs: dict[str, Damages] = {}
        self._layers: dict[str, Damages] = {}

    def run(self, image: Image) -> VerifiedImage:
        """Verify all manifests, the configuration and the layers of an image.

        :raises NotFound: if the image has been removed.
        """
        store = self._store
        with store.pinned_image(image.id) as image:
            store.wait_whole(image)
            blobs, images = store.parts(image).blobs, store.with_siblings(image)
            kinds = dict.fromkeys((m for i in images for m in store.manifests_of(i.id)), "manifest")
            kinds |= {i.target: "manifest" for i in images} | {i.id: "config" for i in images}
            damages = [
                damage
                for blob in sorted(blobs)
                for damage in self._blob(blob, kinds.get(blob, "blob"))
            ]
            count = 0
            for each in images:
                for blob, layer in self._pairs(each.manifest, each):
                    count += 1
                    damages += self._layer(blob, layer)
        return VerifiedImage(image, len(blobs), count, tuple(damages))

    def _pairs(self, manifest: str, image: Image) -> Iterator[tuple[str, str]]:
        return zip(self._store.layers_of(manifest), image.layers, strict=True)

    def _blob(self, digest: str, kind: str) -> Damages:
        if digest not in self._blobs:
            problem = self._store.blobs.check(digest)
            self._store.blobs.mark(digest, damaged=bool(problem))
            self._blobs[digest] = (Damage(kind, digest, problem),) if problem else ()
        return self._blobs[digest]

    def _layer(self, blob: str, layer: str) -> Damages:
        if layer not in self._layers:
            if self._blobs[blob]:
                damages: Damages = (
                    Damage("layer", layer, "it cannot be compared, since its blob is damaged"),
                )
            else:
                damages = tuple(self._compare(blob, layer))
                self._store.layers.mark(layer, damaged=bool(damages))
            self._layers[layer] = damages
        return self._layers[layer]

    def _compare(self, blob: str, layer: str) -> Iterator[Damage]:
        try:
            with self._store.blobs.open(blob) as file:
                for deviation in self._store.layers.check(file, layer):
                    yield Damage("layer", layer, deviation.problem, deviation.path)
        except (InvalidRequest, CorruptState, NotFound) as error:
            yield Damage("layer", layer, error.message)
        except OSError as error:
            yield Damage("layer", layer, f"it cannot be read: {error.strerror}")
