"""The image store: an OCI image layout, and the layers unpacked from it.

Source: opencontainers/image-spec 1.1. An image's id is the digest of its configuration, as in
Docker. ``index.json`` lists the images (:mod:`jaula.images.store.catalog`). Manifests,
configurations and layers as received are blobs (:mod:`jaula.images.store.blobs`). Layers are
unpacked into the :class:`~jaula.storage.layers.store.LayerStore` when an image is added.

The store does not know whether a container uses an image; the caller passes that.

Methods may be called from several threads. The index is changed under one lock. An image that is
being loaded is pinned, so that a concurrent removal does not collect its parts as garbage
(:class:`GcRoots`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from jaula.config import Paths
from jaula.errors import Conflict, InvalidRequest
from jaula.images.reference import familiar, index_name, parse
from jaula.images.store.blobs import BlobStore
from jaula.images.store.catalog import (
    Catalog,
    History,
    Image,
    NameIndex,
    check_document,
    digest_of,
    history,
    short,
)
from jaula.spec.image import CONFIG, Descriptor, Manifest, decode, encode
from jaula.storage.layers.store import LayerStore

__all__ = [
    "GcRoots",
    "Image",
    "ImageStore",
    "RemovalResult",
    "check_document",
    "familiar",
    "short",
]

Names = list[str]
Holder = Callable[[], Iterable[str]]
"""Return the digests of blobs and layers that something other than an image needs."""


class GcRoots:
    """Digests of blobs and diff ids of layers that no image names, or does not name yet.

    The blobs and layers of an image that is being loaded are pinned. Holders that keep some for
    longer, such as the build cache, are asked each time. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._holders: list[Holder] = []

    def hold(self, holder: Holder) -> None:
        """Ask ``holder`` from now on, from any thread, for more roots."""
        self._holders.append(holder)

    @contextmanager
    def pinned(self, digests: Iterable[str]) -> Iterator[None]:
        """Keep ``digests`` for the duration of a ``with`` statement. Pins may overlap."""
        pins = tuple(digests)
        with self._lock:
            self._pins.update(pins)
        try:
            yield
        finally:
            with self._lock:
                self._pins.subtract(pins)
                self._pins = +self._pins

    def all(self) -> set[str]:
        """Return the pins and the roots of all holders."""
        with self._lock:
            pins = set(self._pins)
        return pins.union(*(holder() for holder in self._holders))


class RemovalResult(list[dict[str, str]]):
    """Docker's list of ``{"Untagged": name}`` and ``{"Deleted": digest}``.

    ``freed`` is in bytes.
    """

    freed = 0


class ImageStore:
    """The images of one engine."""

    def __init__(self, paths: Paths, layers: LayerStore) -> None:
        paths.images.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.layers = layers
        self.blobs = BlobStore(paths.images)
        self._index = NameIndex(paths.images)
        self._lock = threading.RLock()
        self._roots = GcRoots()
        self._catalog = Catalog(self.blobs, layers, self._index)

    # -- lookup ---------------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """Return the image for ``ref``: a name, an id or a unique id prefix.

        :raises NotFound: if no image matches.
        :raises CorruptState: if the image cannot be read.
        """
        return self._catalog.resolve(ref)

    def list(self) -> list[Image]:
        """Return all images, newest first."""
        return self._catalog.list()

    def damaged(self) -> dict[str, str]:
        """Return the manifests in the index that cannot be read, and the reasons."""
        return dict(self._catalog.damaged)

    def names_of(self, manifest: str) -> tuple[str, ...]:
        """Return the names of a manifest, damaged or not."""
        return self._index.names_of(manifest)

    def manifest(self, image: Image) -> Manifest:
        """Return the manifest of an image, verified."""
        return self._catalog.manifest(image.manifest)

    def manifests(self) -> frozenset[str]:
        """Return the digests of the manifests of all images."""
        return frozenset(self._catalog.contents)

    def manifests_of(self, id: str) -> tuple[str, ...]:
        """Return the digests of an image's manifests, empty if there is no such image."""
        return self._catalog.manifests_of(id)

    def blobs_of(self, name: str) -> tuple[str, ...]:
        """Return the layer blobs of the manifest with exactly this name, empty if there is none."""
        contents = self._catalog.contents.get(self._index.names.get(name, ""))
        return contents.blobs if contents else ()

    def layers_of(self, manifest: str) -> tuple[str, ...]:
        """Return the layer blobs of a manifest, base first."""
        return self._catalog.contents[manifest].blobs

    def blobs_with(self, image: Image) -> set[str]:
        """Return all blobs of an image: manifests, configuration and layers."""
        blobs = {image.id}
        for manifest in self.manifests_of(image.id):
            blobs |= {manifest, *self._catalog.contents[manifest].blobs}
        return blobs

    def config_bytes(self, image: Image) -> bytes:
        """Return the configuration of an image as received, verified."""
        return self.blobs.document(image.id)

    def media_type(self, image: Image) -> str:
        """Return the media type of an image's manifest."""
        return self._index.media_type(image.manifest)

    def history(self, ref: str) -> History:
        """Return the build steps of an image, newest first."""
        image = self.resolve(ref)
        return history(image, [self.layers.info(layer).size for layer in image.layers])

    # -- adding ---------------------------------------------------------------------------------

    def pinned(self, digests: Iterable[str]) -> AbstractContextManager[None]:
        """Keep blobs and layers that no image names yet during a ``with`` statement."""
        return self._roots.pinned(digests)

    def hold(self, holder: Holder) -> None:
        """Ask ``holder`` from now on, from any thread, for more garbage collection roots."""
        self._roots.hold(holder)

    def held(self) -> set[str]:
        """Return the blobs and layers that stay although no image names them."""
        return self._roots.all()

    def add(self, config: bytes, layers: Sequence[Descriptor], names: Iterable[str]) -> Image:
        """Create an image from a configuration and from layer blobs that are stored and unpacked.

        :raises InvalidRequest: if configuration and layers do not match.
        """
        id = digest_of(config)
        document = check_document(config, id)
        if len(document.rootfs.diff_ids) != len(layers):
            raise InvalidRequest(
                f"image {id} lists {len(document.rootfs.diff_ids)} layers, "
                f"{len(layers)} were supplied"
            )
        for diff_id, layer in zip(document.rootfs.diff_ids, layers, strict=True):
            if not self.layers.has(diff_id) or self.blobs.size(layer.digest) != layer.size:
                raise InvalidRequest(f"layer {diff_id} of image {id} is missing")
        manifest = Manifest(config=Descriptor(CONFIG, id, len(config)), layers=tuple(layers))
        with self._lock:
            self.blobs.put(config)
            existing = self._catalog.manifests_of(id)
            digest = existing[-1] if existing else self.blobs.put(encode(manifest))
            self._catalog.read(digest)  # before it is named: an incomplete image gets no name
            self._index.set(digest, self.blobs.size(digest) or 0, names)
            return self._catalog.image(digest)

    def adopt(self, manifest: bytes, media_type: str, names: Iterable[str]) -> Image:
        """Store a manifest unchanged. Its configuration and layers must be stored and unpacked.

        Names with a digest are Docker's RepoDigests. Other manifests of the same image that have no
        name are removed.

        :raises InvalidRequest: if a part is missing.
        """
        document = decode(manifest, Manifest, "the manifest")
        for layer in document.layers:
            if self.blobs.size(layer.digest) != layer.size:
                raise InvalidRequest(f"layer {layer.digest} of the manifest is not stored")
        with self._lock:
            digest = self.blobs.put(manifest)
            id = self._catalog.read(digest)
            self._index.set(digest, len(manifest), names, media_type)
            self._catalog.remove_unnamed(id)
            return self._catalog.image(digest)

    def tag(self, source: str, target: str) -> Image:
        """Give an image one more name. An image that had the name loses it."""
        reference = parse(target)
        if reference.digest is not None:
            raise InvalidRequest(f"{target!r} names a digest; a tag cannot be set on one")
        with self._lock:
            image = self.resolve(source)
            self._index.set(image.manifest, self.blobs.size(image.manifest) or 0, [str(reference)])
        return self.resolve(image.id)

    # -- removal --------------------------------------------------------------------------------

    def remove(self, ref: str, *, force: bool = False, in_use: str | None = None) -> RemovalResult:
        """Remove a name or an image, and the blobs and layers that nothing needs any more.

        ``in_use`` describes a container that uses the image (``container abc is using it``). Such
        an image loses its names only with ``force``, and stays. A damaged image is removed by its
        names.

        :raises NotFound: if no image matches ``ref``.
        :raises Conflict: if ``force`` is required.
        """
        with self._lock:
            named = index_name(ref)
            if named is not None and self._index.names.get(named) in self._catalog.damaged:
                return self._remove_damaged(named)
            image = self.resolve(ref)
            all_names = image.names + image.digests
            names = tuple(name for name in all_names if name == named)
            by_id = not names
            names = _with_digests(image, names) or all_names
            remaining = tuple(name for name in all_names if name not in names)
            if by_id and len(image.names) > 1 and not force:
                raise Conflict(
                    f"unable to delete {short(image.id)} (must be forced) - image is referenced in "
                    f"multiple repositories: {', '.join(image.names)}"
                )
            if in_use is not None and not remaining and not force:
                raise Conflict(
                    f"unable to remove repository reference {ref!r} (must force) - {in_use}"
                    if not by_id
                    else f"unable to delete {short(image.id)} (must be forced) - {in_use}"
                )
            result = RemovalResult({"Untagged": name} for name in names)
            if remaining or in_use is not None:
                self._index.unset(names)
                self._catalog.remove_unnamed(image.id)
                return result
            self._catalog.forget(image.id)
            result.append({"Deleted": image.id})
            removed, result.freed = self._collect()
            result.extend({"Deleted": layer} for layer in removed)
            return result

    def _remove_damaged(self, name: str) -> RemovalResult:
        manifest = self._index.names[name]
        result = RemovalResult([{"Untagged": name}])
        if self._index.names_of(manifest) != (name,):
            self._index.unset((name,))
        else:
            del self._catalog.damaged[manifest]
            self._index.drop((manifest,))
            result.append({"Deleted": manifest})
            removed, result.freed = self._collect()
            result.extend({"Deleted": layer} for layer in removed)
        return result

    def reload_manifest(self, manifest: str) -> None:
        """Read a damaged image again.

        :raises JaulaError: if it is still damaged.
        """
        with self._lock:
            self._catalog.read(manifest)

    def needed(self) -> tuple[set[str], set[str]]:
        """Return the diff ids of layers and the digests of blobs that must stay."""
        layers = self.held()
        blobs = {*layers, *self._catalog.damaged}
        for digest, contents in list(self._catalog.contents.items()):
            layers.update(contents.document.rootfs.diff_ids)
            blobs.update((digest, contents.id, *contents.blobs))
        return layers, blobs

    def garbage(self) -> tuple[Names, Names]:
        """Return the layers and blobs that :meth:`collect` would remove."""
        with self._lock:
            if self._catalog.damaged:
                return [], []
            layers, blobs = self.needed()
            return (
                [diff_id for diff_id in self.layers.ids() if diff_id not in layers],
                [digest for digest in self.blobs.list() if digest not in blobs],
            )

    def collect(self) -> Names:
        """Remove blobs and layers that no image needs and return the diff ids of the layers."""
        return self._collect()[0]

    def _collect(self) -> tuple[Names, int]:
        with self._lock:
            if self._catalog.damaged:
                return [], 0  # the parts of a damaged image are unknown, so nothing is removed
            layers, blobs = self.needed()
            unused = [diff_id for diff_id in self.layers.ids() if diff_id not in layers]
            freed = sum(self.layers.size(diff_id) for diff_id in unused)
            for diff_id in unused:
                self.layers.remove(diff_id)
            return unused, freed + self.blobs.keep_only(blobs)

    def sweep(self) -> Names:
        """Remove partial files that a crash left. Call this before anything is loaded."""
        self._catalog.remove_all_unnamed()
        return self._index.sweep() + self.layers.sweep() + self.blobs.sweep() + self.collect()


def _with_digests(image: Image, names: tuple[str, ...]) -> tuple[str, ...]:
    """Add to ``names`` the digests of each repository in which the image loses its last tag."""
    tagged = {name.rpartition(":")[0] for name in image.names if name not in names}
    untagged = {name.rpartition(":")[0] for name in names if "@" not in name} - tagged
    return names + tuple(
        name for name in image.digests if name.partition("@")[0] in untagged and name not in names
    )
