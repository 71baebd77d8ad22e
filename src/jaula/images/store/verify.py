"""Whether images are what they were when they came: blobs by digest, layers file by file.

A manifest and a configuration are named by digest, and the configuration names the layers by theirs
(diff ids). So a layer is right when its blob has the digest that the manifest says, its plain
content the one that the configuration says, and the unpacked directory is what unpacking that
content gives. For the latter the layer is unpacked once more beside it, which takes as much room
for a moment, and compared entry by entry.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from jaula.errors import CorruptState, InvalidRequest, NotFound
from jaula.images.store.image import Image
from jaula.images.store.store import ImageStore


class Damage(msgspec.Struct, frozen=True):
    """Something that is not as it should be: ``kind`` is manifest, config, blob or layer.

    ``path`` is a file of a layer; empty where the whole is meant.
    """

    kind: str
    digest: str
    problem: str
    path: str = ""


Damages = tuple[Damage, ...]


class VerifiedImage(msgspec.Struct, frozen=True):
    """What was read of an image (its manifests' blobs, its layers), and what was found."""

    image: Image
    blobs: int
    layers: int
    damages: Damages = ()


class Verification:
    """Reads images; what several share is read once."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._blobs: dict[str, Damages] = {}
        self._layers: dict[str, Damages] = {}

    def run(self, image: Image) -> VerifiedImage:
        """Read everything that an image consists of."""
        store = self._store
        blobs = store.blobs_with(image)
        with store.pinned({*blobs, *image.layers}):
            damages = [damage for blob in sorted(blobs) for damage in self._blob(image, blob)]
            count = 0
            for manifest in store.manifests_of(image.id)[-1:]:
                for blob, layer in self._pairs(manifest, image):
                    count += 1
                    damages += self._layer(blob, layer)
        return VerifiedImage(image, len(blobs), count, tuple(damages))

    def _pairs(self, manifest: str, image: Image) -> Iterator[tuple[str, str]]:
        return zip(self._store.layers_of(manifest), image.layers, strict=True)

    def _blob(self, image: Image, digest: str) -> Damages:
        if digest not in self._blobs:
            problem = self._store.blobs.check(digest)
            kind = "blob"
            if digest == image.id:
                kind = "config"
            elif digest in self._store.manifests_of(image.id):
                kind = "manifest"
            self._blobs[digest] = (Damage(kind, digest, problem),) if problem else ()
        return self._blobs[digest]

    def _layer(self, blob: str, layer: str) -> Damages:
        if layer not in self._layers:
            if self._blobs[blob]:
                found: Damages = (
                    Damage("layer", layer, "it cannot be compared, since its blob is damaged"),
                )
            else:
                found = tuple(self._compared(blob, layer))
            self._layers[layer] = found
        return self._layers[layer]

    def _compared(self, blob: str, layer: str) -> Iterator[Damage]:
        try:
            with self._store.blobs.open(blob) as file:
                for deviation in self._store.layers.check(file, layer):
                    yield Damage("layer", layer, deviation.problem, deviation.path)
        except (InvalidRequest, CorruptState, NotFound) as error:
            yield Damage("layer", layer, error.message)
        except OSError as error:
            yield Damage("layer", layer, f"it cannot be read: {error.strerror}")
