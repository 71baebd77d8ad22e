"""The image store: an OCI image layout, and the layers unpacked from it.

Source: opencontainers/image-spec 1.1. An image's id is the digest of its configuration, as in
Docker. ``index.json`` lists the images (:mod:`jaula.images.store.image_catalog`). Manifests,
configurations and layers as received are blobs (:mod:`jaula.images.store.blobs`). Layers are
unpacked into the :class:`~jaula.storage.layers.layer_store.LayerStore` when an image is added.

The store does not know whether a container uses an image; the caller passes that.

Methods may be called from several threads. The index is changed under one lock. What arrives is
kept by a :class:`Lease`, so that a concurrent removal does not collect it as garbage.

Garbage collection removes nothing that arrives, by three rules:

1. A blob or layer is pinned before the store is asked whether it exists, and before it gets its
   final name. The pin ends after an image names it.
2. Collection decides under the lock of the pins, and renames the garbage away under the same lock.
   So a pin is taken either before the decision, which keeps the content, or after the rename: then
   the content is absent, and its owner stores it again.
3. An image that is read is pinned first and looked up again afterwards (:meth:`ImageStore.pin`).

Files are deleted after the locks are released. No lock is held while content is received.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import NamedTuple

from jaula.config import Paths
from jaula.errors import Conflict, CorruptState, InvalidRequest, NotFound
from jaula.images.reference import could_be_id, familiar, index_name, parse
from jaula.images.store.blobs import BlobStore
from jaula.images.store.image_catalog import (
    Catalog,
    CatalogContents,
    History,
    Image,
    Images,
    IndexContents,
    NameIndex,
    Parts,
    built_from,
    check_document,
    digest_of,
    history,
    short,
)
from jaula.images.store.image_names import NameRights, owners_after
from jaula.images.store.image_quota import Footprint, Quota, Usage, usage
from jaula.kernel.syncfs import sync_file_systems
from jaula.spec.image_documents import (
    CONFIG,
    Descriptor,
    Manifest,
    Platform,
    decode,
    diff_id_of,
    encode,
    layer_name,
)
from jaula.storage.file_errors import file_error
from jaula.storage.layers.layer_store import LayerStore

__all__ = [
    "GcRoots",
    "Image",
    "ImageStore",
    "Lease",
    "RemovalResult",
    "check_document",
    "familiar",
    "short",
]

_WRITEBACK_INTERVAL = 0.1  # seconds
SHORT_ID = 12  # hexadecimal digits

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
        """Ask ``holder`` from now on, from any thread, for more roots. It must take no pin."""
        self._holders.append(holder)

    def pin(self, digests: Iterable[str]) -> None:
        with self._lock:
            self._pins.update(digests)

    def unpin(self, digests: Iterable[str]) -> None:
        with self._lock:
            self._pins.subtract(digests)
            self._pins = +self._pins

    @contextmanager
    def locked(self) -> Iterator[set[str]]:
        """Yield the pins and the roots of all holders. No pin is taken or released meanwhile."""
        with self._lock:
            yield set(self._pins).union(*(holder() for holder in self._holders))


class Incomplete(NamedTuple):
    """The layers of an image, by diff id, that are mounted and not whole.

    ``failure`` is the reason for which one cannot get whole, '' while all are fetched.
    """

    layers: tuple[str, ...]
    failure: str


class Lease:
    """Blobs and layers that garbage collection keeps until the lease is closed.

    Leases may overlap. The methods may be called from several threads.
    """

    def __init__(self, roots: GcRoots) -> None:
        self._roots = roots
        self._pins: list[str] = []

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def pin(self, *digests: str) -> None:
        """Keep ``digests`` from now on, whether they exist yet or not."""
        self._roots.pin(digests)
        self._pins.extend(digests)

    def close(self) -> None:
        """Release all pins. A second call does nothing."""
        pins, self._pins = self._pins, []
        self._roots.unpin(pins)


class Garbage(NamedTuple):
    """Layers and blobs that were taken out of the store: pairs of digest and temporary name."""

    layers: tuple[tuple[str, str], ...] = ()
    blobs: tuple[tuple[str, str], ...] = ()
    layer_bytes: int = 0


class RemovalResult(list[dict[str, str]]):
    """Docker's list of ``{"Untagged": name}`` and ``{"Deleted": digest}``.

    ``freed`` is in bytes.
    """

    freed = 0


class ImageStore:
    """The images of one engine."""

    def __init__(self, paths: Paths, layers: LayerStore, *, durable: bool = True) -> None:
        """Open the store. With ``durable``, the content of an image is on the disk before its name.

        Without, an image may be damaged by a power failure soon after it was stored.
        """
        paths.images.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directories = (paths.images, paths.layers) if durable else ()
        self.layers = layers
        self.blobs = BlobStore(paths.images)
        self._index = NameIndex(paths.images)
        self._lock = threading.RLock()
        self._roots = GcRoots()
        self._catalog = Catalog(self.blobs, layers, self._index)

    # -- lookup ---------------------------------------------------------------------------------

    def resolve(self, ref: str, platform: Platform | None = None) -> Image:
        """Return the image for ``ref``: a name, an id or a unique id prefix.

        Of an index it is the one for ``platform``, or else the best one for this machine.

        :raises NotFound: if no image matches, or not for ``platform``.
        :raises CorruptState: if the image cannot be read.
        """
        return self._catalog.resolve(ref, platform)

    @property
    def manifest_count(self) -> int:
        """The number of manifests of all images."""
        return len(self._catalog.contents)

    def list(self) -> Images:
        """Return all images, newest first. An index is one image, whatever it has."""
        return self._catalog.list()

    def descendants(self, refs: Collection[str]) -> frozenset[str]:
        """Return the ids of some images and of those built from them."""
        bases: dict[str, Image] = {}
        for ref in dict.fromkeys(refs):
            # As in Docker, an absent image has no descendants.
            with suppress(CorruptState, InvalidRequest, NotFound):
                base = self.resolve(ref)
                bases[base.id] = base
        if not bases:
            return frozenset()
        built = built_from(self.list(), bases.values())
        return frozenset((*bases, *(image.id for image in built)))

    def images(self, image: Image) -> Images:
        """Return the images that the target of ``image`` has, the one for this machine first."""
        return self._catalog.images(image.target)

    def with_siblings(self, image: Image) -> Images:
        """Return an image, and the others of all indexes that list it."""
        return self._catalog.with_siblings(image)

    def common_labels(self, image: Image) -> dict[str, str]:
        """Return the labels that an image has in common with all others of its indexes.

        A removal of the image removes these too, so a right by one label needs it on all of them.
        """
        first, *others = (each.config.labels for each in self.with_siblings(image))
        return {key: v for key, v in first.items() if all(o.get(key) == v for o in others)}

    def index(self, digest: str) -> IndexContents | None:
        """Return an index that is the target of a name, or None if ``digest`` is not one."""
        return self._catalog.indexes.get(digest)

    def held_images(self, target: str) -> tuple[str, ...]:
        """Return the manifests of images that an index has in the store, damaged or not.

        For a manifest it is the manifest itself.

        :raises JaulaError: if the index cannot be read.
        """
        if not self._index.is_index(target):
            return (target,)
        return self._catalog.describe_index(target, self._index.held(target)).images

    def ids_with(self, id: str) -> frozenset[str]:
        """Return the ids of an image and of those that an index has together with it."""
        return self._catalog.ids_with(id)

    def parts(self, image: Image) -> Parts:
        """Return all blobs and layers of an image, and of the indexes that list it."""
        return self._catalog.parts(image)

    def unpacked_size(self, image: Image) -> int:
        """Return the size in bytes of the unpacked layers of all images of an index."""
        images = self._catalog.images(image.target)
        layers = {name for each in images for name in _names(each)}
        if len(layers) == len(set(image.layers)):
            return image.size
        return sum(self.layers.info(layer).size for layer in layers)

    def disk_size(self, image: Image) -> int:
        """Return the bytes of all blobs and unpacked layers of an image and of its indexes."""
        parts = self._catalog.parts(image)
        unpacked = self.layers.stored_sizes(parts.layers)(parts.layers)
        return unpacked + sum(self.blobs.size(blob) or 0 for blob in parts.blobs)

    def named_layers(self) -> frozenset[str]:
        """Return the diff ids of the layers of all images."""
        return frozenset(map(diff_id_of, self._catalog.all_parts().layers))

    def damaged(self) -> dict[str, str]:
        """Return the manifests in the index that cannot be read, and the reasons."""
        return dict(self._catalog.damaged)

    def names_of(self, manifest: str) -> tuple[str, ...]:
        """Return the names of a manifest, damaged or not, and of the indexes that have it."""
        return self._catalog.names_of(manifest)

    def manifest(self, image: Image) -> Manifest:
        """Return the manifest of an image, verified."""
        return self._catalog.manifest(image.manifest)

    def document(self, manifest: str) -> Manifest:
        """Return a stored manifest by its digest, verified: an image's or an attestation's."""
        return self._catalog.manifest(manifest)

    def content_size(self, manifest: str) -> int:
        """Return the size in bytes of a manifest with its blobs, as they are in a registry."""
        return sum(self._catalog.artifact_sizes(manifest).values())

    def manifests(self) -> frozenset[str]:
        """Return the digests of the manifests of all images."""
        return frozenset(self._catalog.contents)

    def manifests_of(self, id: str) -> tuple[str, ...]:
        """Return the digests of an image's manifests, empty if there is no such image."""
        return self._catalog.manifests_of(id)

    def blobs_of(self, name: str) -> tuple[str, ...]:
        """Return the layer blobs of what has exactly this name, empty if there is none."""
        target = self._index.names.get(name, "")
        index = self._catalog.indexes.get(target)
        manifests = index.images if index else (target,)
        catalog = self._catalog.contents
        return tuple(blob for m in manifests if m in catalog for blob in catalog[m].blobs)

    def layers_of(self, manifest: str) -> tuple[str, ...]:
        """Return the layer blobs of a manifest, base first.

        :raises NotFound: if the image has been removed.
        """
        contents = self._catalog.contents.get(manifest)
        if contents is None:
            raise NotFound(f"No such image: {manifest}")
        return contents.blobs

    def config_bytes(self, image: Image) -> bytes:
        """Return the configuration of an image as received, verified."""
        return self.blobs.document(image.id)

    def media_type(self, image: Image) -> str:
        """Return the media type of an image's manifest."""
        index = self._catalog.indexes.get(image.target)
        entry = index.tree.entry(image.manifest) if index else None
        return entry.descriptor.media_type if entry else self._index.media_type(image.manifest)

    def descriptor(self, image: Image) -> Descriptor:
        """Return the descriptor of what the name of an image refers to."""
        listed = self._index.descriptor(image.target)
        return listed or Descriptor(self.media_type(image), image.target, 0)  # removed meanwhile

    def manifest_descriptor(self, id: str) -> Descriptor | None:
        """Return the descriptor of the manifest of one image, with its platform; None if absent."""
        try:
            image = self.resolve(id)
        except (CorruptState, NotFound):
            return None
        size = self.blobs.size(image.manifest) or 0
        return Descriptor(self.media_type(image), image.manifest, size, platform=image.platform)

    def history(self, ref: str, platform: Platform | None = None) -> History:
        """Return the build steps of an image, newest first."""
        with self.pinned_image(ref, platform) as image:
            return history(image, [self.layers.size(layer) for layer in _names(image)])

    # -- adding ---------------------------------------------------------------------------------

    def lease(self, digests: Iterable[str] = ()) -> Lease:
        """Return a lease of blobs and layers, for a ``with`` statement."""
        lease = Lease(self._roots)
        lease.pin(*digests)
        return lease

    def put(self, lease: Lease, data: bytes) -> str:
        """Store a document that a manifest will list, pinned by a lease; return its digest."""
        digest = digest_of(data)
        lease.pin(digest)
        return self.blobs.put(data)

    def compressed(self, lease: Lease, layers: Collection[str]) -> dict[str, Descriptor]:
        """Return compressed blobs that images have of some layers, by diff id, after pinning them.

        A layer of which no image has one is left out.
        """
        found = self._catalog.compressed(layers) if layers else {}
        lease.pin(*(blob.digest for blob in found.values()))
        return {
            layer: blob
            for layer, blob in found.items()
            if self.blobs.is_intact(blob.digest, blob.size)
        }

    def pin(self, lease: Lease, ref: str, platform: Platform | None = None) -> Image:
        """Return the image for ``ref``, after adding all its parts to a lease.

        These are also the parts of the other images of its index.

        :raises NotFound: if no image matches.
        """
        while True:
            image = self.resolve(ref, platform)
            parts = self._catalog.parts(image)
            lease.pin(*parts.blobs, *parts.layers)
            # Still listed after the pin: no collection has decided about it before.
            after = self._catalog.parts(image)
            listed = image.manifest in self._catalog.contents
            if listed and after.blobs <= parts.blobs and after.layers <= parts.layers:
                return image

    def pin_image(self, lease: Lease, image: Image) -> Image:
        """Return an image again, after adding all its parts to a lease.

        It keeps its manifest, which its id does not name.

        :raises NotFound: if it was removed.
        """
        pinned = self.pin(lease, image.id)
        return image if image.manifest in self._catalog.contents else pinned

    def mountable(self, image: Image) -> tuple[str, ...]:
        """Return the names by which the layers of an image can be mounted, base first.

        It is the diff id of a layer that is whole. A layer that is not whole can be mounted only as
        the manifest of ``image`` states it. A name without a layer is an error when it is used.
        """
        names = zip(image.layers, _names(image), strict=True)
        return tuple(diff_id if self.layers.is_whole(diff_id) else name for diff_id, name in names)

    def incomplete(self, image: Image) -> Incomplete | None:
        """Return the layers of an image that are not whole yet, None if all are."""
        if self.is_whole(image):
            return None
        names = map(layer_name, self.manifest(image).layers, image.layers)
        lazy = [n for n in names if self.layers.is_lazy(n) and not self.layers.is_whole(n)]
        return Incomplete(tuple(map(diff_id_of, lazy)), self.layers.failure(lazy)) if lazy else None

    def is_whole(self, image: Image) -> bool:
        """Return whether the content of each layer of an image had its diff id."""
        return all(map(self.layers.is_whole, image.layers))

    @contextmanager
    def pinned_image(self, ref: str, platform: Platform | None = None) -> Iterator[Image]:
        """Keep an image and all its parts during a ``with`` statement, even if it is removed.

        :raises NotFound: if no image matches.
        """
        with self.lease() as lease:
            yield self.pin(lease, ref, platform)

    def wait_whole(self, image: Image, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Wait until the layers of an image, and of the others in its index, are whole.

        :raises Unavailable: when one cannot be fetched.
        """
        images = (image, *self._catalog.images(image.target))
        names = (name for each in images for name in (*_names(each), *each.layers))
        self.layers.wait_whole(dict.fromkeys(names), cancelled)

    def check_blobs(self, image: Image) -> None:
        """Check that the blobs of an image, and of the others in its index, are its layers.

        It is needed before blobs are given to others in place of layers. Missing ones are left out.

        :raises InvalidRequest: when a blob has another content than the layer.
        """
        for each in (image, *self._catalog.images(image.target)):
            for layer, diff_id in zip(self.manifest(each).layers, each.layers, strict=True):
                if self.blobs.size(layer.digest) is not None:
                    self._check_layers((layer,), (diff_id,))

    def _check_layers(
        self, layers: Sequence[Descriptor], diff_ids: Sequence[str], *, incomplete: bool = False
    ) -> None:
        """Check that each blob of a manifest is stored, and has the content of its layer.

        What a manifest states about both proves nothing. Blobs that were compared before are not
        read again. With ``incomplete``, a layer may be mounted while its blob is fetched.

        :raises InvalidRequest: if one is missing or has another content.
        """
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if incomplete and self.layers.is_lazy(layer_name(layer, diff_id)):
                continue
            if self.blobs.size(layer.digest) != layer.size:
                raise InvalidRequest(f"layer {layer.digest} of the manifest is not stored")
            if not self.layers.has_blob(diff_id, layer.digest):
                with self.blobs.open(layer.digest) as blob:
                    self.layers.check_blob(blob, diff_id, layer.digest)
                self.layers.record_blob(diff_id, layer.digest)

    def hold(self, holder: Holder) -> None:
        """Ask ``holder`` from now on, from any thread, for more garbage collection roots."""
        self._roots.hold(holder)

    def held(self) -> set[str]:
        """Return the blobs and layers that stay although no image names them."""
        with self._roots.locked() as roots:
            return roots

    def usage(self, owner: str, more: Iterable[Footprint] = ()) -> Usage:
        """Return what the images of an owner take, and ``more`` together with them."""
        listed = self._catalog.footprints()
        owned = [footprint for target, footprint in listed if self._index.owner_of(target) == owner]
        return usage((*owned, *more))

    def owner_of(self, id: str) -> str:
        """Return the owner of an image, empty if it has none."""
        owners = (self._catalog.owner_of(manifest) for manifest in self.manifests_of(id))
        return next((owner for owner in owners if owner), "")

    def name_owners(self, image: Image) -> dict[str, str]:
        """Return the owner of each name of an image, empty for administrators."""
        owners = self._index.name_owners
        return {name: owners.get(name, "") for name in (*image.names, *image.digests)}

    def name_count(self, owner: str) -> int:
        """Return how many names an owner has, those with a digest included."""
        return self._index.name_counts[owner]

    def more_names(self, owner: str, names: Iterable[str]) -> frozenset[str]:
        """Return those of some names that an owner does not have. Invalid ones are left out."""
        owners = self._index.name_owners
        valid = {name for each in names if each and (name := index_name(each)) is not None}
        return frozenset(name for name in valid if owners.get(name) != owner)

    def check_more_names(self, quota: Quota | None, names: Iterable[str]) -> None:
        """Check that the owner may have these names besides its own ones.

        The decision is made again when an image gets them.

        :raises NotAuthorized: when it may not.
        """
        if quota is not None and (more := self.more_names(quota.owner, names)):
            quota.check_names(self.name_count(quota.owner) + len(more))

    def check_names(
        self, quota: Quota | None, names: Iterable[str], target: str, image: str, way_out: str = ""
    ) -> None:
        """Check that the owner may let names refer to an image that is to arrive.

        ``target`` is the digest of its manifest or index, empty if unknown, and ``image`` its id.
        The decision is made again when it is named. ``way_out`` is an advice for the error.

        :raises NotAuthorized: when a name belongs to another owner and refers to another image, or
            the owner may not have as many names.
        """
        if quota is not None:
            self._owners_after(names, target, image, quota, way_out)

    def _owners_after(
        self,
        names: Iterable[str],
        target: str,
        image: str,
        quota: Quota | None,
        way_out: str = "",
    ) -> dict[str, str]:
        index, names = self._index, tuple(names)
        rights = quota.name_rights if quota is not None else None
        if rights is not None:
            for name in names:
                self._check_short_id(name, rights)

        def has_image(former: str) -> bool:
            return self._has_image(former, image)

        owners = owners_after(
            names, target, index.names, index.name_owners, has_image, rights, way_out
        )
        if quota is not None:
            self.check_more_names(quota, (n for n, owner in owners.items() if owner == quota.owner))
        return owners

    def _refers_to(self, name: str, image: str) -> bool:
        target = self._index.names.get(name)
        return target is not None and self._has_image(target, image)

    def _has_image(self, target: str, image: str) -> bool:
        """Return whether a manifest is one of an image, or an index shows it for this machine."""
        catalog = self._catalog
        if target in catalog.indexes:
            return catalog.images(target)[0].id == image
        return target in catalog.contents and catalog.contents[target].id == image

    def _check_short_id(self, name: str, rights: NameRights) -> None:
        """Check that a name is not the short id of an image of another owner.

        A reference is looked up among names first, so such a name would replace that image.

        :raises NotAuthorized: when it is.
        """
        text = name.removesuffix(":latest")
        if len(text) < SHORT_ID or not could_be_id(text) or name in self._index.names:
            return
        for image in self.list():
            if image.id.startswith("sha256:" + text):
                advice = "choose another name"
                rights.check("take the short id", text, self.owner_of(image.id), advice)

    def check_quota(self, quota: Quota | None, images: Iterable[Footprint]) -> None:
        """Check that the owner may have images that are to arrive. An existing one costs nothing.

        The decision is made again when they are named.
        """
        if quota is None:
            return
        new = [image for image in images if not self._exists(image)]
        if new:
            quota.check(lambda: self.usage(quota.owner, new))

    def _exists(self, image: Footprint) -> bool:
        """Return whether the index lists an image, also a damaged one."""
        return bool(self.manifests_of(image.image)) or image.manifest in self._index.manifests()

    def add(
        self,
        config: bytes,
        layers: Sequence[Descriptor],
        names: Iterable[str],
        quota: Quota | None = None,
    ) -> Image:
        """Create an image from a configuration and from layer blobs that are stored and unpacked.

        The caller has pinned the layers and their blobs since before it stored them. The image
        belongs to the owner of ``quota`` if it does not exist yet. It has no owner without one.

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
        self._check_layers(layers, document.rootfs.diff_ids)
        manifest = encode(
            Manifest(config=Descriptor(CONFIG, id, len(config)), layers=tuple(layers))
        )
        new, names = digest_of(manifest), tuple(names)
        find = self._without_annotations if names else self._catalog.complete_manifests_of
        with self.lease((id, new)):
            self.blobs.put(config)
            if not find(id):
                self.blobs.put(manifest)
            self.sync()
            with self._lock:
                existing = find(id)
                digest = existing[-1] if existing else self.blobs.put(manifest)
                self._name(digest, self.blobs.size(digest) or 0, names, quota=quota)
                self._catalog.remove_unnamed(id)  # such as an index that had one of the names
                return self._catalog.image(digest)

    def _without_annotations(self, id: str) -> tuple[str, ...]:
        """Return the intact manifests of an image without annotations: those are of one build.

        A manifest with a layer that is not whole is left out: its statements are not verified.
        """
        found = []
        for digest in self._catalog.complete_manifests_of(id):
            with suppress(NotFound, CorruptState, InvalidRequest):  # a damaged one is not reused
                if not self._catalog.manifest(digest).annotations:
                    found.append(digest)
        return tuple(found)

    def adopt(
        self,
        manifest: bytes,
        media_type: str,
        names: Iterable[str],
        quota: Quota | None = None,
        *,
        same_image: bool = False,
    ) -> Image:
        """Store a manifest unchanged. Its configuration and layers must be stored and unpacked.

        The caller has pinned them since before it stored them. Names with a digest are Docker's
        RepoDigests. Other manifests of the same image that have no name are removed. The owner is
        that of :meth:`add`. With ``same_image`` the engine has made the manifest from another one
        of the image: the names keep their owners.

        :raises InvalidRequest: if a part is missing.
        """
        document = decode(manifest, Manifest, "the manifest")
        self._check_manifest(document)
        names = tuple(names)
        with self.lease((digest_of(manifest),)):
            digest = self.blobs.put(manifest)
            if not self._index.is_current(digest, len(manifest), names, media_type):
                self.sync()
            with self._lock:
                id = self._name(
                    digest, len(manifest), names, media_type, quota, same_image=same_image
                )
                self._catalog.remove_unnamed(id)
                if digest in self._catalog.contents:
                    return self._catalog.image(digest)
                return self._catalog.resolve(id)  # its names stay where another owner has set them

    def _check_manifest(self, manifest: Manifest) -> None:
        """Check the layers of a manifest that is to be named.

        :raises InvalidRequest: if one is missing or has another content.
        """
        config = manifest.config
        document = check_document(self.blobs.document(config.digest, config.size), config.digest)
        if len(document.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidRequest(
                f"image {config.digest} lists {len(document.rootfs.diff_ids)} layers, "
                f"its manifest {len(manifest.layers)}"
            )
        self._check_layers(manifest.layers, document.rootfs.diff_ids, incomplete=True)

    def adopt_index(
        self,
        index: bytes,
        media_type: str,
        manifests: Iterable[str],
        names: Iterable[str],
        quota: Quota | None = None,
    ) -> Image:
        """Store an index unchanged and name it. Return the image for this machine.

        ``manifests`` are those of its manifests that are stored and unpacked, besides the ones that
        the store holds of this index already. The caller has pinned them with all their parts since
        before it stored them, and the indexes in this one. An index belongs to the owner of
        ``quota`` since this call, if it brings an image of the index: the owner is charged for all.

        :raises InvalidRequest: if a part is missing, or the index exceeds a limit.
        """
        names, digest = tuple(names), digest_of(index)
        manifests = tuple(dict.fromkeys(manifests))
        with self.lease((digest,)):
            self.blobs.put(index)
            if not self._index.is_current(digest, len(index), names, media_type, manifests):
                self.sync()
            with self._lock:
                self._name_index(digest, len(index), names, media_type, manifests, quota)
                held = self._catalog.indexes[digest].images
                catalog = self._catalog.contents
                for id in dict.fromkeys(catalog[m].id for m in held if m in catalog):
                    self._catalog.remove_unnamed(id)
                if digest in self._catalog.indexes:
                    return self._catalog.images(digest)[0]
                # It has no name, and another index with all its images has one.
                return self._catalog.resolve(catalog[held[0]].id)

    def _name_index(
        self,
        digest: str,
        size: int,
        names: Iterable[str],
        media_type: str,
        manifests: tuple[str, ...],
        quota: Quota | None,
    ) -> None:
        """Add a stored index and its new manifests to the catalog, then to the index of names."""
        catalog = self._catalog
        before = catalog.indexes.get(digest)
        held = tuple(dict.fromkeys((*self._index.held(digest), *manifests)))
        for manifest in manifests:
            catalog.artifact_sizes(manifest)  # one that is not stored gives no name
        described = catalog.describe_index(digest, held)
        if not described.images:
            raise InvalidRequest(f"none of the images of index {digest} was supplied")
        brought = [m for m in described.images if m in manifests]
        images = {m: catalog.describe(m) for m in brought}  # an incomplete one gets no name
        for manifest in images:
            self._check_manifest(catalog.manifest(manifest))
        catalog.insert_index(digest, described, images)
        try:
            owner = self._index.owner_of(digest)
            if not self._index.lists(digest) or not set(held) <= set(self._index.held(digest)):
                owner = quota.owner if quota else ""
                if quota:
                    footprint = catalog.index_footprint(digest)
                    quota.check(lambda: self._usage_with(quota.owner, digest, footprint))
            name_owners = self._owners_after(names, digest, catalog.images(digest)[0].id, quota)
            damaged = [m for m in catalog.damaged if self._index.names_of(m)]
            self._index.set(digest, size, name_owners, media_type, owner, held, name_owners)
        except BaseException:
            catalog.restore_index(digest, before)
            raise
        catalog.drop_damaged([m for m in damaged if not self._index.names_of(m)])

    def _usage_with(self, owner: str, index: str, footprint: Footprint) -> Usage:
        """Return what an owner's images take together with an index that may be among them."""
        listed = [pair for pair in self._catalog.footprints() if pair[0] != index]
        owned = [other for target, other in listed if self._index.owner_of(target) == owner]
        return usage((*owned, footprint))

    def sync(self) -> None:
        """Write blobs and layers to the disk, before a name or a record refers to them.

        One call for the whole file system costs less than one for each file of a layer.
        """
        try:
            sync_file_systems(*self._directories)
        except OSError as error:
            raise file_error(error, "cannot store an image") from error

    @contextmanager
    def early_writeback(self) -> Iterator[None]:
        """Write what arrives during a ``with`` statement to the disk meanwhile.

        Otherwise the kernel begins after half a minute, and :meth:`sync` would wait for all of it.
        """
        if not self._directories:
            yield
            return
        ended = threading.Event()

        def write() -> None:
            with suppress(OSError):  # sync() reports it
                while not ended.wait(_WRITEBACK_INTERVAL):
                    sync_file_systems(*self._directories)

        thread = threading.Thread(target=write, name="writeback", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()

    def _name(
        self,
        manifest: str,
        size: int,
        names: Iterable[str],
        media_type: str | None = None,
        quota: Quota | None = None,
        *,
        same_image: bool = False,
    ) -> str:
        """Add a stored manifest to the catalog, then to the index. Return the id of its image."""
        before = self._catalog.contents.get(manifest)
        # Before it is named: an incomplete image gets no name.
        contents = self._catalog.describe(manifest)
        owner = self._admit(manifest, contents, quota)
        if same_image:  # one may refer to another image since the manifest was made
            names = [name for name in names if self._refers_to(name, contents.id)]
        namer = None if same_image else quota
        name_owners = self._owners_after(names, manifest, contents.id, namer)
        self._catalog.insert(manifest, contents)
        damaged = [m for m in self._catalog.damaged if self._index.names_of(m)]
        try:
            self._index.set(manifest, size, name_owners, media_type, owner, (), name_owners)
        except BaseException:
            self._catalog.restore(manifest, before)
            raise
        # This image replaces a damaged one that had its names.
        self._catalog.drop_damaged([m for m in damaged if not self._index.names_of(m)])
        return contents.id

    def _admit(self, manifest: str, contents: CatalogContents, quota: Quota | None) -> str:
        """Return the owner of an image, after the check that the owner of a new one may have it."""
        if manifests := self.manifests_of(contents.id):
            return self._catalog.owner_of(manifests[-1])
        if manifest in self._index.manifests():  # it was damaged
            return self._index.owner_of(manifest)
        if quota is None:
            return ""
        quota.check(lambda: self.usage(quota.owner, (contents.footprint,)))
        return quota.owner

    def tags_of(self, ref: str) -> tuple[str, ...]:
        """Return the names with the repository that ``ref`` is; empty if it has a tag or digest."""
        name = ref.rpartition("/")[2]
        if ":" in name or "@" in name or (repository := familiar(ref)) is None:
            return ()
        prefix = repository.rpartition(":")[0]
        names = (name for image in self.list() for name in image.names)
        return tuple(sorted(name for name in names if name.rpartition(":")[0] == prefix))

    def tag(self, source: str, target: str, quota: Quota | None = None) -> Image:
        """Give an image one more name. An image that had the name loses it.

        :raises NotAuthorized: when the name belongs to another owner and refers to another image,
            or the owner of ``quota`` may not have as many names.
        :raises InvalidRequest: when the name could be confused with an id, or is not valid.
        """
        reference = parse(target)
        if reference.repository == "sha256":
            raise InvalidRequest(
                "refusing to create an ambiguous tag using digest algorithm as name"
            )
        if reference.digest is not None:
            raise InvalidRequest(f"{target!r} names a digest; a tag cannot be set on one")
        with self._lock:
            image = self.resolve(source)
            name = str(reference)
            owners = self._owners_after((name,), image.target, image.id, quota)
            size = self.blobs.size(image.target) or 0
            self._index.set(image.target, size, owners, name_owners=owners)
            return self.resolve(image.id)

    # -- removal --------------------------------------------------------------------------------

    def remove(
        self,
        ref: str,
        *,
        force: bool = False,
        all_names: bool = False,
        in_use: str | None = None,
        rights: NameRights | None = None,
        id: str = "",
        names: Collection[str] | None = None,
    ) -> RemovalResult:
        """Remove a name or an image, and the blobs and layers that nothing needs any more.

        With ``all_names`` the image that ``ref`` names is removed with all of its names.

        ``in_use`` describes a container that uses the image (``container abc is using it``). Such
        an image loses its names only with ``force``, and stays. A damaged image is removed by its
        names, and without names by the digest of its manifest.

        The engine itself has no ``rights``. Another caller removes its own names, and leaves an
        image without a name that belongs to another owner.

        Another client may have moved or added names since the caller has decided. So with ``id``
        remove only that image or a name of it, and with ``names`` only an image with just these,
        those with a digest included.

        :raises NotAuthorized: if the name or the image belongs to another owner.
        :raises NotFound: if no image matches ``ref``.
        :raises Conflict: if ``force`` is required, or names were moved or added.
        """
        garbage = Garbage()
        with self._lock:
            if id or names is not None:
                image = self.resolve(ref)
                now = {*image.names, *image.digests}
                if image.id != (id or image.id) or now != set(now if names is None else names):
                    raise _renamed(ref)
            result = self._unname(ref, in_use, rights, force=force, all_names=all_names)
            if any("Deleted" in step for step in result):
                garbage = self.detach(self.candidates())
        result.extend({"Deleted": diff_id_of(layer)} for layer, _ in garbage.layers)
        result.freed = self.delete(garbage)
        return result

    def _check_removal(
        self, names: Iterable[str], image: str, owner: str, rights: NameRights | None
    ) -> None:
        """Check that a caller may remove these names, or an image without names.

        :raises NotAuthorized: if one belongs to another owner.
        """
        if rights is None:
            return
        names = tuple(names)
        for name in names:
            way_out = "remove your own names of the image, one by one; that owner may remove this"
            rights.check("remove the name", name, self._index.name_owners.get(name, ""), way_out)
        if not names:
            rights.check("remove the image", short(image), owner, "that owner may")

    def _unname(
        self,
        ref: str,
        in_use: str | None,
        rights: NameRights | None,
        *,
        force: bool,
        all_names: bool,
    ) -> RemovalResult:
        named = index_name(ref)
        if named is not None and self._index.names.get(named) in self._catalog.damaged:
            return self._remove_damaged(named, rights, all_names=all_names)
        if ref in self._catalog.damaged and not self._index.names_of(ref):
            self._check_removal((), ref, self._catalog.owner_of(ref), rights)
            self._catalog.drop_damaged((ref,))
            return RemovalResult([{"Deleted": ref}])
        image = self.resolve(ref)
        names_of = image.names + image.digests
        names = () if all_names else tuple(name for name in names_of if name == named)
        by_id = not names
        self._check_removal(names or names_of, image.id, self.owner_of(image.id), rights)
        names = self._removable(_with_digests(image, names), rights) or names_of
        remaining = tuple(name for name in names_of if name not in names)
        if by_id and len(image.names) > 1 and not (force or all_names):
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
        stays = rights is not None and not rights.may_change(self.owner_of(image.id))
        if stays and not remaining:
            self._index.unset(names)
            return result
        if remaining or in_use is not None:
            targets = {self._index.names[name] for name in names}
            self._index.unset(names)
            self._catalog.remove_unnamed(image.id)
            if in_use is None:  # the image has another name, but the index was removed
                dropped = self._catalog.drop_unnamed_indexes(targets)
                result.extend({"Deleted": index} for index in dropped)
            return result
        self._catalog.forget(image.id)
        result.append({"Deleted": image.id})
        return result

    def _removable(self, names: tuple[str, ...], rights: NameRights | None) -> tuple[str, ...]:
        """Return those of some names that a caller may remove."""
        owners = self._index.name_owners
        return tuple(n for n in names if rights is None or rights.may_change(owners.get(n, "")))

    def remove_platforms(
        self,
        ref: str,
        platforms: Sequence[Platform],
        *,
        in_use: Callable[[str], str | None],
        rights: NameRights | None = None,
        index: str = "",
    ) -> RemovalResult:
        """Remove the images for some platforms from the index that ``ref`` names.

        ``in_use`` returns the description of a container that uses an image, by its id. With
        ``index``, a digest, ``ref`` must still name that index.

        :raises NotAuthorized: if the index, or a name of it, belongs to another owner.
        :raises NotFound: if the index does not have one of them.
        :raises Conflict: if a container uses one, the index would have no image left, or the name
            was moved.
        """
        garbage = Garbage()
        result = RemovalResult()
        with self._lock:
            target = self.resolve(ref).target
            if target != (index or target):
                raise _renamed(ref)
            listed = self._catalog.indexes.get(target)
            self._check_removal(self._index.names_of(target), target, "", rights)
            self._check_removal((), target, self._index.owner_of(target), rights)
            chosen = {image.manifest: image for image in self._chosen(ref, platforms)}
            for image in chosen.values():
                if reason := in_use(image.id):
                    raise Conflict(
                        f"unable to delete {short(image.id)} (cannot be forced) - {reason}"
                    )
            left = {image.manifest for image in self._catalog.images(target)} - chosen.keys()
            if listed is None or not left:
                raise Conflict(
                    f"unable to delete all platforms of {ref}: it would have no image left",
                    hint=f"remove the image itself: jaula rmi {ref}",
                )
            entries = [e for e in listed.tree.entries if e.subject in chosen]
            gone = {*chosen, *(e.descriptor.digest for e in entries)} & {
                *listed.images,
                *listed.artifacts,
            }
            self._catalog.release(target, gone)
            result.extend({"Deleted": manifest} for manifest in chosen)
            garbage = self.detach(self.candidates())
        result.extend({"Deleted": diff_id_of(layer)} for layer, _ in garbage.layers)
        result.freed = self.delete(garbage)
        return result

    def _chosen(self, ref: str, platforms: Sequence[Platform]) -> Images:
        return [self.resolve(ref, platform) for platform in platforms]

    def _remove_damaged(
        self, name: str, rights: NameRights | None, *, all_names: bool
    ) -> RemovalResult:
        manifest = self._index.names[name]
        names_of = self._index.names_of(manifest)
        names = names_of if all_names else (name,)
        self._check_removal(names, manifest, "", rights)
        result = RemovalResult({"Untagged": each} for each in names)
        stays = rights is not None and not rights.may_change(self._catalog.owner_of(manifest))
        if names_of != names or stays:
            self._index.unset(names)
        else:
            self._catalog.drop_damaged((manifest,))
            result.append({"Deleted": manifest})
        return result

    def reload_manifest(self, manifest: str) -> None:
        """Read a damaged image again.

        :raises JaulaError: if it is still damaged.
        """
        with self._lock:
            parents = self._index.parents(manifest)
            for target in parents if parents and not self._index.lists(manifest) else (manifest,):
                self._catalog.read(target)
            if reason := self._catalog.damaged.get(manifest):
                raise CorruptState(reason)

    def needed(self) -> tuple[set[str], set[str]]:
        """Return the diff ids of layers and the digests of blobs that must stay."""
        layers, blobs = self._named()
        held = self.held()
        return {*layers, *held}, {*blobs, *held}

    def _named(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the layers and blobs that images need."""
        parts = self._catalog.all_parts()
        return parts.layers, parts.blobs

    def candidates(self) -> tuple[Names, Names]:
        """Return all layers and blobs. What arrives later is not among them."""
        return self.layers.ids(), self.blobs.digests()

    def garbage(self) -> tuple[Names, Names]:
        """Return the layers and blobs that :meth:`collect` would remove."""
        with self._lock:
            stored = self.candidates()
            layers, blobs = self.needed()
            return (
                [diff_id for diff_id in stored[0] if diff_id not in layers],
                [digest for digest in stored[1] if digest not in blobs],
            )

    def collect(self) -> Names:
        """Remove blobs and layers that no image needs and return the diff ids of the layers."""
        garbage = self.detach(self.candidates())
        self.delete(garbage)
        return [diff_id for diff_id, _ in garbage.layers]

    def detach(self, candidates: tuple[Names, Names]) -> Garbage:
        """Take those of ``candidates`` out of the store that nothing needs, by renames."""
        with self._lock:
            layers, blobs = self._named()
            with self._roots.locked() as roots:
                unused = [d for d in candidates[0] if d not in layers and d not in roots]
                size = self.layers.freed_size(unused)
                return Garbage(
                    _pairs(unused, self.layers.detach),
                    _pairs(
                        [d for d in candidates[1] if d not in blobs and d not in roots],
                        self.blobs.detach,
                    ),
                    size,
                )

    def delete(self, garbage: Garbage) -> int:
        """Delete what :meth:`detach` took out, and return the bytes freed."""
        for _, name in garbage.layers:
            self.layers.remove_incomplete(name)
        freed = sum(self.blobs.remove_incomplete(name) for _, name in garbage.blobs)
        return freed + garbage.layer_bytes

    def sweep(self) -> Names:
        """Remove partial files that a crash left. Call this before anything is loaded."""
        self._catalog.remove_all_unnamed()
        return self._index.sweep() + self.layers.sweep() + self.blobs.sweep() + self.collect()


def _renamed(ref: str) -> Conflict:
    return Conflict(f"another client has changed the names of {ref} meanwhile", hint="try again")


def _names(image: Image) -> tuple[str, ...]:
    """Return the names of the layers of an image, base first."""
    return image.layer_names or image.layers


def _pairs(digests: Names, detach: Callable[[str], str | None]) -> tuple[tuple[str, str], ...]:
    """Detach each of ``digests`` and return those that existed, with their temporary names."""
    return tuple((digest, name) for digest in digests if (name := detach(digest)) is not None)


def _with_digests(image: Image, names: tuple[str, ...]) -> tuple[str, ...]:
    """Add to ``names`` the digests of each repository in which the image loses its last tag."""
    tagged = {name.rpartition(":")[0] for name in image.names if name not in names}
    untagged = {name.rpartition(":")[0] for name in names if "@" not in name} - tagged
    return names + tuple(
        name for name in image.digests if name.partition("@")[0] in untagged and name not in names
    )
