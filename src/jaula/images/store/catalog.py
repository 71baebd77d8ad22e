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
    """What a manifest leads to; ``size`` is of the unpacked layers, in bytes."""

    id: str
    document: ImageDocument
    size: int
    blobs: tuple[str, ...]  # of its layers


class Catalog:
    """The manifests of one index. Changes are made under the store's lock."""

    def __init__(self, blobs: BlobStore, layers: LayerStore, index: NameIndex) -> None:
        self._blobs = blobs
        self._layers = layers
        self._index = index
        self._ids: dict[str, tuple[str, ...]] = {}  # image id: digests of its manifests
        self.contents: dict[str, CatalogContents] = {}
        self.damaged: dict[str, str] = {}
        for manifest in index.manifests():
            try:
                self.read(manifest)
            except JaulaError as error:
                self.damaged[manifest] = error.message

    def read(self, digest: str) -> str:
        """Take a stored manifest in; the id of its image. Raises for one that is not whole."""
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
        others = [d for d in self._ids.get(config.digest, ()) if d != digest]
        self._ids[config.digest] = (*others, digest)
        self.damaged.pop(digest, None)
        return config.digest

    def manifest(self, digest: str) -> Manifest:
        """A stored manifest, verified."""
        manifest = decode(self._blobs.document(digest), Manifest, f"manifest {digest}")
        if manifest.schema_version != 2:
            raise InvalidRequest(
                f"manifest {digest} has the version {manifest.schema_version}, not 2"
            )
        return manifest

    def manifests_of(self, id: str) -> tuple[str, ...]:
        """Digests of the manifests of one image; none where there is no such image."""
        return self._ids.get(id, ())

    def forget(self, id: str) -> None:
        """Take an image away, with all its manifests and names."""
        manifests = self._ids.pop(id, ())
        self._index.drop(manifests)
        for manifest in manifests:
            self.contents.pop(manifest, None)

    def forget_nameless(self, id: str) -> None:
        """Take away manifests of an image without a name, where another one has names."""
        named = [m for m in self._ids[id] if self._index.names_of(m)]
        nameless = set(self._ids[id]) - set(named)
        if named and nameless:
            self._index.drop(nameless)
            for digest in nameless:
                self.contents.pop(digest, None)
            self._ids[id] = tuple(named)

    def forget_all_nameless(self) -> None:
        """The same for every image: what an interrupted change left."""
        for id in self._ids:
            self.forget_nameless(id)

    # -- looking up -----------------------------------------------------------------------------

    def image(self, manifest: str) -> Image:
        """The image that a manifest describes."""
        found = self.contents[manifest]
        names = sorted({n for m in self._ids[found.id] for n in self._index.names_of(m)})
        return Image(
            id=found.id,
            names=tuple(name for name in names if "@" not in name),
            digests=tuple(name for name in names if "@" in name),
            manifest=manifest,
            layers=found.document.rootfs.diff_ids,
            size=found.size,
            document=found.document,
        )

    def list(self) -> Images:
        """All images, the newest first."""
        images = [self.image(manifests[-1]) for manifests in self._ids.values()]
        return sorted(images, key=lambda image: (image.created, image.id), reverse=True)

    def resolve(self, ref: str) -> Image:
        """The image of that name, id or unique beginning of an id.

        Raises :class:`NotFound`, and :class:`CorruptState` for one that cannot be read.
        """
        for id in (ref, "sha256:" + ref):
            if id in self._ids:
                return self.image(self._ids[id][-1])
        manifest, shown = None, ref
        try:
            reference = parse(ref)
        except InvalidRequest:
            if not could_be_id(ref):
                raise
        else:
            shown = str(reference)
            manifest = self._index.names.get(shown)
            if manifest is None and reference.digest is not None:
                known = f"{reference.repository}@{reference.digest}"
                manifest = self._index.names.get(known) or self._by_digest(reference)
        if manifest is None and could_be_id(ref):
            manifest = self._by_beginning(ref)
        if manifest is None:
            raise NotFound(f"No such image: {shown}")
        if manifest not in self.contents:
            raise CorruptState(
                f"image {shown} is damaged: {self.damaged[manifest]}",
                hint="jaula system check --repair mends what can be mended",
            )
        return self.image(manifest)

    def _by_beginning(self, text: str) -> str | None:
        """The manifest of the one image whose id begins with ``text``."""
        beginning = "sha256:" + text.removeprefix("sha256:")
        found = [id for id in self._ids if id.startswith(beginning)]
        if len(found) > 1:
            raise InvalidRequest(
                f"image id {text!r} is ambiguous: {len(found)} images begin with it"
            )
        return self._ids[found[0]][-1] if found else None

    def _by_digest(self, reference: Reference) -> str | None:
        for manifest in self._index.manifests():
            repositories = {parse(name).repository for name in self._index.names_of(manifest)}
            if manifest == reference.digest and reference.repository in repositories:
                return manifest
        return None
