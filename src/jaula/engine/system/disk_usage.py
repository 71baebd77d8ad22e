"""``system df``: the disk usage of images, containers, volumes and the build cache, in bytes.

An image uses its unpacked layers and its blobs: manifests, configuration, layers as they were
received. The sum counts layers and blobs of several images once. They are the shared part of each
of these images; a removal frees the size of an image less its shared part. What only the build
cache keeps is listed there.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from jaula.errors import NotFound
from jaula.request_context import check_client

if TYPE_CHECKING:
    from jaula.engine.containers.containers import Containers
    from jaula.engine.images.images import Images
    from jaula.engine.model.services import Services
    from jaula.engine.volumes.volumes import Volumes
    from jaula.images.store.image_names import NameRights
    from jaula.images.store.image_store import Image, ImageStore

Document = dict[str, Any]
Contents = set[tuple[str, str]]
_WRITABLE_AGE = 10.0  # seconds; the age that containerd's values have at most
_WRITABLE_SHARE = 20  # measurements take at most this part of the time
_ACTIVE_STATES = ("running", "paused", "restarting")


class ImageUsage:
    """Layers and blobs of all images, and their sizes."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._contents = {image.id: self._of(image) for image in store.list()}
        self._users = Counter(
            content for contents in self._contents.values() for content in contents
        )
        self._blob_sizes = {
            digest: store.blobs.size(digest) or 0 for kind, digest in self._users if kind == "blob"
        }
        self._layers_size = store.layers.stored_sizes(
            digest for kind, digest in self._users if kind == "layer"
        )

    def _of(self, image: Image) -> Contents:
        parts = self._store.parts(image)
        return {("blob", d) for d in parts.blobs} | {("layer", layer) for layer in parts.layers}

    def _size(self, contents: Iterable[tuple[str, str]]) -> int:
        """Return the bytes of layers and blobs together. Layers may share chunks."""
        layers = []
        size = 0
        for kind, digest in contents:
            if kind == "layer":
                layers.append(digest)
            else:
                size += self._blob_sizes[digest]
        return size + self._layers_size(layers)

    def whole(self) -> int:
        """Return the bytes of all images together."""
        return self._size(self._users)

    def size(self, image: str) -> int:
        """Return the bytes of everything that an image needs."""
        return self._size(self._contents.get(image, ()))

    def shared(self, image: str) -> int:
        """Return the bytes of what other images need as well."""
        contents = self._contents.get(image, ())
        left = [
            content
            for content, users in self._users.items()
            if users > 1 or content not in contents
        ]
        return self._size(contents) - (self.whole() - self._size(left))

    def unused(self, used: Collection[str], held: Collection[str]) -> int:
        """Return the bytes that removing every unused image would free.

        ``used`` are ids of images in use, ``held`` digests that stay for another reason.
        """
        together = {id for image in used for id in self._store.ids_with(image)}
        kept = {content for image in together for content in self._contents.get(image, ())}
        left = [content for content in self._users if content in kept or content[1] in held]
        return self.whole() - self._size(left)


class StorageUsage(NamedTuple):
    """The bytes and inodes below ``path`` at ``moment``, in nanoseconds since the epoch."""

    path: str
    size: int
    inodes: int
    moment: int


class Storage(NamedTuple):
    """The usage of images and of writable layers. It is one value if they share a file system."""

    images: StorageUsage
    containers: StorageUsage


class DiskUsage:
    """The disk usage of an engine. All but :meth:`storage` read every file that they count."""

    def __init__(
        self,
        services: Services,
        containers: Containers,
        images: Images,
        volumes: Volumes,
        build_caches: Sequence[Callable[[NameRights | None], list[Document]]],
    ) -> None:
        """``build_caches`` return Docker's documents of the steps in the build cache."""
        self._services = services
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._build_caches = build_caches
        self._lock = threading.Lock()
        self._writable: StorageUsage | None = None
        self._expiry = 0.0

    def storage(self) -> Storage:
        """Return what images, the build cache and the writable layers of containers use.

        The sizes of layers are stored. The writable layers are read, but not for each request: a
        kubelet asks every few seconds. Containers of a removed snapshot are left out.
        """
        services, paths = self._services, self._services.config.paths
        with self._lock:  # requests at one time share the result
            if self._writable is None or monotonic() >= self._expiry:
                began = monotonic()
                self._writable = self._measure_writable()
                ended = monotonic()
                self._expiry = ended + max(_WRITABLE_AGE, _WRITABLE_SHARE * (ended - began))
            containers = self._writable
        layers, blobs = services.images.candidates()
        size = services.layers.stored_sizes(layers)(layers)
        size += sum(services.images.blobs.size(blob) or 0 for blob in blobs)
        inodes = len(blobs) + sum(services.layers.inodes(layer) for layer in layers)
        images = StorageUsage(str(paths.layers), size, inodes, time.time_ns())
        if _device(images.path) != _device(containers.path):
            return Storage(images, containers)
        both = StorageUsage(
            str(paths.root),
            images.size + containers.size,
            images.inodes + containers.inodes,
            containers.moment,
        )
        return Storage(both, both)

    def _measure_writable(self) -> StorageUsage:
        services = self._services
        moment, size, inodes = time.time_ns(), 0, 0
        for container in list(services.container_store):
            with suppress(NotFound):  # it has been removed meanwhile, or its snapshot is gone
                usage = services.snapshots.usage(container.id)
                size += usage.size
                inodes += usage.inodes
        return StorageUsage(str(services.config.paths.containers), size, inodes, moment)

    def document(self, rights: NameRights | None = None) -> Document:
        """Return Docker's disk usage document, and how much of the images no container uses."""
        services = self._services
        containers = self._containers.list(all=True, limit=None, filters={}, size=True)
        volumes = self._volumes.read_list({})["Volumes"]
        users = services.volume_references.users()
        for volume in volumes:
            volume["UsageData"] = {
                "RefCount": len(users.get(volume["Name"], ())),
                "Size": services.volumes.usage(volume["Name"], check_client),
            }
        usage = ImageUsage(services.images)
        images = self._images.list(all=True, filters={}, digests=False)
        for summary in images:
            summary["Size"] = usage.size(summary["Id"])
            summary["SharedSize"] = usage.shared(summary["Id"])
        used = {image for c in services.container_store for image in c.record.images}
        whole, unused = usage.whole(), usage.unused(used, services.images.held())
        cache = [step for usage in self._build_caches for step in usage(rights)]
        in_use = [image for image in images if image["Id"] in used]
        return {
            "LayersSize": whole,
            "LayersReclaimable": unused,
            "Images": images,
            "Containers": containers,
            "Volumes": volumes,
            "BuildCache": cache,
            "ImageUsage": _usage(images, len(in_use), whole, unused),
            "ContainerUsage": _usage(
                containers, *_totals(containers, "SizeRw", lambda c: c["State"] in _ACTIVE_STATES)
            ),
            "VolumeUsage": _usage(volumes, *_volume_totals(volumes)),
            "BuildCacheUsage": _usage(
                cache, *_totals(cache, "Size", lambda step: step["InUse"] or step["Shared"])
            ),
        }


def _device(path: str) -> int:
    """Return the device of a directory, or of the one in which it will be created."""
    try:
        return os.stat(path).st_dev
    except FileNotFoundError:
        return os.stat(os.path.dirname(path)).st_dev


def _usage(items: list[Document], active: int, size: int, reclaimable: int) -> Document:
    """Return the usage of one kind of object, sizes in bytes."""
    return {
        "ActiveCount": active,
        "TotalCount": len(items),
        "TotalSize": size,
        "Reclaimable": reclaimable,
        "Items": items,
    }


def _totals(
    items: list[Document], size: str, is_active: Callable[[Document], bool]
) -> tuple[int, int, int]:
    """Return the number of active objects, the size of all, and the size of those not active."""
    active = [item for item in items if is_active(item)]
    total = sum(item.get(size, 0) for item in items)
    return len(active), total, total - sum(item.get(size, 0) for item in active)


def _volume_totals(volumes: list[Document]) -> tuple[int, int, int]:
    rows = [volume["UsageData"] for volume in volumes]
    return _totals(rows, "Size", lambda row: row["RefCount"] > 0)
