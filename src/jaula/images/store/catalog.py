"""Which images there are: the index's manifests, read and looked up.

An image may have several manifests: one that was loaded and, with layers compressed otherwise, one
that was pulled. Its names are those of all of them; each name leads to its own manifest. A manifest
that cannot be read is kept apart with the reason, so that one damaged image hides no other.
"""

from __future__ import annotations

import msgspec

from jaula.errors import CorruptState, InvalidRequest, JaulaError, NotFound
from jaula.images.reference import Reference, could_be_id, parse
from jaula.images.store.blobs import BlobStore
from jaula.images.store.image import Image, check_document
from jaula.images.store.index import NameIndex
from jaula.spec.image import ImageDocument, Manifest, decode
from jaula.storage.layers.store import LayerStore

Images = list[Image]


class CatalogContents(msgspec.Struct, frozen=True):
    """The image that a manifest describes. ``size`` is that of the unpacked layers, in bytes."""

    id: str
    document: ImageDocument
    size: int
    blobs: tuple[str, ...]  # digests of the layer blobs


class Catalog:
    """The manifests of one index. Changes are made under the store's lock."""

    def __init__(self, blobs: BlobStore, layers: LayerStore, index: NameIndex) -> None:
        self._blobs = blobs
        self._layers = layers
        self._index = index
        self._ids: dict[str, tuple[str, ...]] = {}  # image id -> digests of its manifests
        self.contents: dict[str, CatalogContents] = {}
        self.damaged: dict[str, str] = {}
        for manifest in index.manifests():
            try:
                self.read(manifest)
            except JaulaError as error:
                self.damaged[manifest] = error.message

    def read(self, digest: str) -> str:
        """Add a stored manifest to the catalog and return the id of its image.

        :raises JaulaError: if the manifest, its configuration or a layer is missing or damaged.
        """
        manifest = self.manifest(digest)
        config = manifest.config
        data = self._blobs.document(config.digest, config.size)
        document = check_document(data, config.digest)
        if len(document.rootfs.diff_ids) != len(manifest.layers):
            raise InvalidRequest(
                f"image {config.digest} lists {len(document.rootfs.diff_ids)} layers, "
                f"its manifest {len(manifest.layers)}"
            )
        size = sum(self._layers.info(layer).size for layer in document.rootfs.diff_ids)
        blobs = tuple(layer.digest for layer in manifest.layers)
        self.contents[digest] = CatalogContents(config.digest, document, size, blobs)
        older = [d for d in self._ids.get(config.digest, ()) if d != digest]
        self._ids[config.digest] = (*older, digest)
        self.damaged.pop(digest, None)
        return config.digest

    def manifest(self, digest: str) -> Manifest:
        """Return a stored manifest, verified."""
        manifest = decode(self._blobs.document(digest), Manifest, f"manifest {digest}")
        if manifest.schema_version != 2:
            raise InvalidRequest(
                f"manifest {digest} has the schema version {manifest.schema_version}, not 2"
            )
        return manifest

    def manifests_of(self, id: str) -> tuple[str, ...]:
        """Return the digests of an image's manifests, empty if there is no such image."""
        return self._ids.get(id, ())

    def forget(self, id: str) -> None:
        """Remove an image with all its manifests and names."""
        manifests = self._ids.pop(id, ())
        self._index.drop(manifests)
        for manifest in manifests:
            self.contents.pop(manifest, None)

    def forget_nameless(self, id: str) -> None:
        """Remove the unnamed manifests of an image, if another of its manifests has a name."""
        named = [m for m in self._ids[id] if self._index.names_of(m)]
        nameless = set(self._ids[id]) - set(named)
        if named and nameless:
            self._index.drop(nameless)
            for digest in nameless:
                self.contents.pop(digest, None)
            self._ids[id] = tuple(named)

    def forget_all_nameless(self) -> None:
        """Remove the unnamed manifests of every image, as an interrupted change leaves them."""
        for id in self._ids:
            self.forget_nameless(id)

    # -- lookup ---------------------------------------------------------------------------------

    def image(self, manifest: str) -> Image:
        """Return the image that a manifest describes."""
        contents = self.contents[manifest]
        names = sorted({n for m in self._ids[contents.id] for n in self._index.names_of(m)})
        return Image(
            id=contents.id,
            names=tuple(name for name in names if "@" not in name),
            digests=tuple(name for name in names if "@" in name),
            manifest=manifest,
            layers=contents.document.rootfs.diff_ids,
            size=contents.size,
            document=contents.document,
        )

    def list(self) -> Images:
        """Return all images, newest first."""
        images = [self.image(manifests[-1]) for manifests in self._ids.values()]
        return sorted(images, key=lambda image: (image.created, image.id), reverse=True)

    def resolve(self, ref: str) -> Image:
        """Return the image for ``ref``: a name, an id or a unique id prefix.

        :raises NotFound: if no image matches.
        :raises CorruptState: if the image cannot be read.
        :raises InvalidRequest: if an id prefix is ambiguous or ``ref`` is not valid.
        """
        for id in (ref, "sha256:" + ref):
            if id in self._ids:
                return self.image(self._ids[id][-1])
        manifest, label = None, ref
        try:
            reference = parse(ref)
        except InvalidRequest:
            if not could_be_id(ref):
                raise
        else:
            label = str(reference)
            manifest = self._index.names.get(label)
            if manifest is None and reference.digest is not None:
                digest_name = f"{reference.repository}@{reference.digest}"
                manifest = self._index.names.get(digest_name) or self._by_digest(reference)
        if manifest is None and could_be_id(ref):
            manifest = self._by_id_prefix(ref)
        if manifest is None:
            raise NotFound(f"No such image: {label}")
        if manifest not in self.contents:
            raise CorruptState(
                f"image {label} is damaged: {self.damaged[manifest]}",
                hint="jaula system check --repair repairs what is repairable",
            )
        return self.image(manifest)

    def _by_id_prefix(self, text: str) -> str | None:
        """Return the manifest of the one image whose id starts with ``text``."""
        prefix = "sha256:" + text.removeprefix("sha256:")
        matches = [id for id in self._ids if id.startswith(prefix)]
        if len(matches) > 1:
            raise InvalidRequest(
                f"image id {text!r} is ambiguous: {len(matches)} images start with it"
            )
        return self._ids[matches[0]][-1] if matches else None

    def _by_digest(self, reference: Reference) -> str | None:
        for manifest in self._index.manifests():
            repositories = {parse(name).repository for name in self._index.names_of(manifest)}
            if manifest == reference.digest and reference.repository in repositories:
                return manifest
        return None
