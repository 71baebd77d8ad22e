"""The store of images: an OCI image layout, and the layers unpacked from it.

Source: opencontainers/image-spec 1.1. An image's id is the digest of its configuration, as Docker
has it. ``index.json`` says which images there are (:mod:`jaula.images.store.index`,
:mod:`jaula.images.store.catalog`); manifests, configurations and layers as they came are blobs
(:mod:`jaula.images.store.blobs`); layers are unpacked into the
:class:`~jaula.storage.layers.store.LayerStore` when an image arrives.

Whether a container uses an image is not known here: the caller says so.

Methods may be called from several threads: what changes the index is done under one lock, and what
is being loaded is pinned, so that a removal meanwhile does not take it for rubbish.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from jaula.config import Paths
from jaula.errors import Conflict, InvalidRequest
from jaula.images.reference import familiar, in_index, parse
from jaula.images.store import image as images
from jaula.images.store.blobs import BlobStore
from jaula.images.store.catalog import Catalog
from jaula.images.store.gc_roots import GcRoots, Holder
from jaula.images.store.image import History, Image, check_document, short
from jaula.images.store.index import NameIndex
from jaula.spec.image import CONFIG, Descriptor, Manifest, decode, encode
from jaula.storage.layers.store import LayerStore

__all__ = ["Image", "ImageStore", "check_document", "familiar", "short"]

Names = list[str]


class RemovalResult(list[dict[str, str]]):
    """Docker's list of ``{"Untagged": name}`` and ``{"Deleted": digest}``; ``freed`` in bytes."""

    freed = 0


class ImageStore:
    """The images of one engine."""

    def __init__(self, paths: Paths, layers: LayerStore) -> None:
        paths.images.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.layers = layers
        self.blobs = BlobStore(paths.images)
        self._index = NameIndex(paths.images)
        self._lock = threading.RLock()
        self._needed = GcRoots()
        self._catalogue = Catalog(self.blobs, layers, self._index)

    # -- looking up -----------------------------------------------------------------------------

    def resolve(self, ref: str) -> Image:
        """The image of that name, id or unique beginning of an id.

        Raises :class:`NotFound`, and :class:`CorruptState` for one that cannot be read.
        """
        return self._catalogue.resolve(ref)

    def list(self) -> list[Image]:
        """All images, the newest first."""
        return self._catalogue.list()

    def damaged(self) -> dict[str, str]:
        """Manifests that the index names but that cannot be read, and why."""
        return dict(self._catalogue.damaged)

    def names_of(self, manifest: str) -> tuple[str, ...]:
        """The names that lead to a manifest, damaged or not."""
        return self._index.names_of(manifest)

    def manifest(self, image: Image) -> Manifest:
        """The image's manifest, verified."""
        return self._catalogue.manifest(image.manifest)

    def manifests(self) -> frozenset[str]:
        """Digests of the manifests of all images."""
        return frozenset(self._catalogue.contents)

    def manifests_of(self, id: str) -> tuple[str, ...]:
        """Digests of the manifests of one image; none where there is no such image."""
        return self._catalogue.manifests_of(id)

    def blobs_of(self, name: str) -> tuple[str, ...]:
        """The layers' blobs of the manifest that has exactly this name; none where nothing has."""
        found = self._catalogue.contents.get(self._index.names.get(name, ""))
        return found.blobs if found else ()

    def layers_of(self, manifest: str) -> tuple[str, ...]:
        """The layers' blobs of a manifest, base first."""
        return self._catalogue.contents[manifest].blobs

    def blobs_with(self, image: Image) -> set[str]:
        """All blobs that an image needs: manifests, configuration, layers as they came."""
        found = {image.id}
        for manifest in self.manifests_of(image.id):
            found |= {manifest, *self._catalogue.contents[manifest].blobs}
        return found

    def config_bytes(self, image: Image) -> bytes:
        """The configuration as it came, verified."""
        return self.blobs.document(image.id)

    def media_type(self, image: Image) -> str:
        """What the image's manifest is."""
        return self._index.media_type(image.manifest)

    def history(self, ref: str) -> History:
        """How the image was made, the newest step first."""
        image = self.resolve(ref)
        return images.history(image, [self.layers.info(layer).size for layer in image.layers])

    # -- adding ---------------------------------------------------------------------------------

    def pinned(self, digests: Iterable[str]) -> AbstractContextManager[None]:
        """Blobs and layers that must stay although no image names them yet."""
        return self._needed.pinned(digests)

    def hold(self, holder: Holder) -> None:
        """From now on :meth:`collect` asks ``holder``, from any thread, what must stay as well."""
        self._needed.hold(holder)

    def held(self) -> set[str]:
        """Blobs and layers that stay although no image names them: pinned, or a holder's."""
        return self._needed.all()

    def add(self, config: bytes, layers: Sequence[Descriptor], names: Iterable[str]) -> Image:
        """Make an image of a configuration and of layer blobs that are stored and unpacked.

        Raises :class:`InvalidRequest` where they do not fit together.
        """
        id = images.digest(config)
        document = check_document(config, id)
        if len(document.rootfs.diff_ids) != len(layers):
            raise InvalidRequest(
                f"image {id} lists {len(document.rootfs.diff_ids)} layers, "
                f"{len(layers)} came with it"
            )
        for diff_id, layer in zip(document.rootfs.diff_ids, layers, strict=True):
            if not self.layers.has(diff_id) or self.blobs.size(layer.digest) != layer.size:
                raise InvalidRequest(f"layer {diff_id} of image {id} did not come with it")
        manifest = Manifest(config=Descriptor(CONFIG, id, len(config)), layers=tuple(layers))
        with self._lock:
            self.blobs.put(config)
            known = self._catalogue.manifests_of(id)
            digest = known[-1] if known else self.blobs.put(encode(manifest))
            self._catalogue.read(digest)  # before it is named: what is not whole gets no name
            self._index.set(digest, self.blobs.size(digest) or 0, names)
            return self._catalogue.image(digest)

    def adopt(self, manifest: bytes, media_type: str, names: Iterable[str]) -> Image:
        """Keep a manifest as it is, its configuration and layers being stored and unpacked.

        Names with a digest are Docker's RepoDigests. A manifest of the same image that has no
        name of its own goes. Raises :class:`InvalidRequest` where something is missing.
        """
        document = decode(manifest, Manifest, "the manifest")
        for layer in document.layers:
            if self.blobs.size(layer.digest) != layer.size:
                raise InvalidRequest(f"layer {layer.digest} of the manifest is not stored")
        with self._lock:
            digest = self.blobs.put(manifest)
            id = self._catalogue.read(digest)
            self._index.set(digest, len(manifest), names, media_type)
            self._catalogue.forget_nameless(id)
            return self._catalogue.image(digest)

    def tag(self, source: str, target: str) -> Image:
        """Give an image one more name; an image that had it loses it."""
        reference = parse(target)
        if reference.digest is not None:
            raise InvalidRequest(f"{target!r} names a digest; a tag cannot be set on one")
        with self._lock:
            image = self.resolve(source)
            self._index.set(image.manifest, self.blobs.size(image.manifest) or 0, [str(reference)])
        return self.resolve(image.id)

    # -- removing -------------------------------------------------------------------------------

    def remove(self, ref: str, *, force: bool = False, in_use: str | None = None) -> RemovalResult:
        """Take a name or an image away, and what nothing needs any more.

        ``in_use`` tells of a container that uses the image (``container abc is using it``); such
        an image loses its names only by ``force``, and stays. A damaged one goes by its names.
        Raises :class:`NotFound`, :class:`Conflict`.
        """
        with self._lock:
            named = in_index(ref)
            if named is not None and self._index.names.get(named) in self._catalogue.damaged:
                return self._remove_damaged(named)
            image = self.resolve(ref)
            known = image.names + image.digests
            names = tuple(name for name in known if name == named)
            by_id = not names
            names = _with_digests(image, names) or known
            others = tuple(name for name in known if name not in names)
            if by_id and len(image.names) > 1 and not force:
                raise Conflict(
                    f"unable to delete {short(image.id)} (must be forced) - image is referenced in "
                    f"multiple repositories: {', '.join(image.names)}"
                )
            if in_use is not None and not others and not force:
                raise Conflict(
                    f"unable to remove repository reference {ref!r} (must force) - {in_use}"
                    if not by_id
                    else f"unable to delete {short(image.id)} (must be forced) - {in_use}"
                )
            done = RemovalResult({"Untagged": name} for name in names)
            if others or in_use is not None:
                self._index.unset(names)
                self._catalogue.forget_nameless(image.id)
                return done
            self._catalogue.forget(image.id)
            done.append({"Deleted": image.id})
            gone, done.freed = self._collect()
            done.extend({"Deleted": layer} for layer in gone)
            return done

    def _remove_damaged(self, name: str) -> RemovalResult:
        manifest = self._index.names[name]
        done = RemovalResult([{"Untagged": name}])
        if self._index.names_of(manifest) != (name,):
            self._index.unset((name,))
        else:
            del self._catalogue.damaged[manifest]
            self._index.drop((manifest,))
            done.append({"Deleted": manifest})
            gone, done.freed = self._collect()
            done.extend({"Deleted": layer} for layer in gone)
        return done

    def read_again(self, manifest: str) -> None:
        """See whether a damaged image is whole by now; raises what is still wrong with it."""
        with self._lock:
            self._catalogue.read(manifest)

    def needed(self) -> tuple[set[str], set[str]]:
        """Diff ids of layers and digests of blobs that must stay."""
        layers = self.held()
        blobs = {*layers, *self._catalogue.damaged}
        for digest, contents in list(self._catalogue.contents.items()):
            layers.update(contents.document.rootfs.diff_ids)
            blobs.update((digest, contents.id, *contents.blobs))
        return layers, blobs

    def garbage(self) -> tuple[Names, Names]:
        """Layers and blobs that :meth:`collect` would remove."""
        with self._lock:
            if self._catalogue.damaged:
                return [], []
            layers, blobs = self.needed()
            return (
                [diff_id for diff_id in self.layers.ids() if diff_id not in layers],
                [digest for digest in self.blobs.list() if digest not in blobs],
            )

    def collect(self) -> Names:
        """Remove blobs and layers that no image needs; the diff ids of the layers."""
        return self._collect()[0]

    def _collect(self) -> tuple[Names, int]:
        with self._lock:
            if self._catalogue.damaged:
                return [], 0  # what a damaged image needs is not known, so nothing is thrown away
            layers, blobs = self.needed()
            gone = [diff_id for diff_id in self.layers.ids() if diff_id not in layers]
            freed = sum(self.layers.size(diff_id) for diff_id in gone)
            for diff_id in gone:
                self.layers.remove(diff_id)
            return gone, freed + self.blobs.keep_only(blobs)

    def sweep(self) -> Names:
        """Remove what a crash left half-made; call it before anything is loaded."""
        self._catalogue.forget_all_nameless()
        return self._index.sweep() + self.layers.sweep() + self.blobs.sweep() + self.collect()


def _with_digests(image: Image, names: tuple[str, ...]) -> tuple[str, ...]:
    """``names``, and an image's digests in a repository where it loses its last tag by that."""
    left = {name.rpartition(":")[0] for name in image.names if name not in names}
    gone = {name.rpartition(":")[0] for name in names if "@" not in name} - left
    return names + tuple(
        name for name in image.digests if name.partition("@")[0] in gone and name not in names
    )
