"""``system df``: what everything takes, in bytes of files' contents.

An image takes what its unpacked layers hold and, beside that, its blobs: manifests, configuration,
layers as they came. Layers and blobs that several images have are counted once in the sum, and are
each image's shared part; what a removal frees is an image's size less that. What only the build's
cache keeps is listed there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaula.engine.builder.service import Builds
    from jaula.engine.containers.service import Containers
    from jaula.engine.images.service import Images
    from jaula.engine.model.services import Services
    from jaula.engine.volumes.service import Volumes
    from jaula.images.store.store import Image, ImageStore

Document = dict[str, Any]


class ImageUsage:
    """The pieces of all images, and what each of them takes."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._pieces = {image.id: self._of(image) for image in store.list()}
        self._users = Counter(piece for pieces in self._pieces.values() for piece in pieces)
        self._sizes = {piece: self._size(*piece) for piece in self._users}

    def _of(self, image: Image) -> set[tuple[str, str]]:
        blobs = {("blob", digest) for digest in self._store.blobs_with(image)}
        return blobs | {("layer", layer) for layer in image.layers}

    def _size(self, kind: str, digest: str) -> int:
        if kind == "layer":
            return self._store.layers.size(digest)
        return self._store.blobs.size(digest) or 0

    def whole(self) -> int:
        """Bytes of all images together."""
        return sum(self._sizes.values())

    def size(self, image: str) -> int:
        """Bytes of everything that an image needs."""
        return sum(self._sizes[piece] for piece in self._pieces.get(image, ()))

    def shared(self, image: str) -> int:
        """Bytes of what other images need as well."""
        pieces = self._pieces.get(image, ())
        return sum(self._sizes[piece] for piece in pieces if self._users[piece] > 1)

    def unused(self, used: Collection[str], held: Collection[str]) -> int:
        """Bytes that would be free without the images that nobody uses.

        ``used`` are ids of images, ``held`` digests that stay for another reason.
        """
        kept = {piece for image in used for piece in self._pieces.get(image, ())}
        return sum(
            size
            for piece, size in self._sizes.items()
            if piece not in kept and piece[1] not in held
        )


class DiskUsage:
    """The disk usage of an engine, computed for each request; it reads every file it counts."""

    def __init__(
        self,
        parts: Services,
        containers: Containers,
        images: Images,
        volumes: Volumes,
        builds: Builds,
    ) -> None:
        self._parts = parts
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._builds = builds

    def document(self) -> Document:
        """Return Docker's disk usage document, and how much of the images no container uses."""
        parts = self._parts
        containers = self._containers.list(all=True, limit=None, filters={}, size=True)
        volumes = self._volumes.list({})["Volumes"]
        users = self._volumes.used()
        for volume in volumes:
            volume["UsageData"] = {
                "RefCount": len(users.get(volume["Name"], ())),
                "Size": parts.volumes.usage(volume["Name"]),
            }
        usage = ImageUsage(parts.images)
        images = self._images.list(all=True, filters={}, digests=False)
        for summary in images:
            summary["Size"] = usage.size(summary["Id"])
            summary["SharedSize"] = usage.shared(summary["Id"])
        used = {container.record.image for container in parts.registry}
        return {
            "LayersSize": usage.whole(),
            "LayersReclaimable": usage.unused(used, parts.images.held()),
            "Images": images,
            "Containers": containers,
            "Volumes": volumes,
            "BuildCache": self._builds.usage(),
        }
