"""The images of a store: ``index.json`` with their names, and the images it leads to.

Sources: opencontainers/image-spec 1.1 ``image-index.md``, ``annotations.md``, ``config.md``. The
index has one descriptor for each name of an image. The name is in the annotation
``org.opencontainers.image.ref.name`` in its familiar form (``busybox:latest``), so that ``skopeo
inspect oci:DIRECTORY:busybox:latest`` finds it. An image without a name has one descriptor without
the annotation. A name with a digest in place of the tag (``user/app@sha256:...``) is the digest of
the image in a registry. The annotation ``io.jaula.owner`` is the caller who brought the image, so
that the owner is written and removed together with the image.

The file is the source of truth. It is written to a temporary name and renamed. The copy in memory
is replaced as a whole, so readers need no lock.

An image may have several manifests: one that was loaded and, with layers compressed differently,
one that was pulled. It has the names of all of them; each name resolves to its own manifest. A
manifest that cannot be read is kept apart with the reason, so that one damaged image hides no
other.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from jaula.errors import (
    CorruptState,
    InvalidRequest,
    JaulaError,
    NotFound,
    resource_error,
)
from jaula.images.reference import Reference, could_be_id, parse
from jaula.images.store.blobs import BlobStore
from jaula.images.store.quota import Footprint, footprint
from jaula.kernel.sync import fsync_paths
from jaula.spec.image import (
    DOCUMENT_LIMIT,
    LAYERS_LIMIT,
    MANIFEST,
    REF_NAME,
    Descriptor,
    ImageConfig,
    ImageDocument,
    Index,
    Layout,
    Manifest,
    Platform,
    decode,
    encode,
)
from jaula.storage.layers.store import LayerStore

OWNER = "io.jaula.owner"
"""The annotation of a manifest in the index that has the owner of its image."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is ready to run. ``layers`` are diff ids, base first; ``size`` is in bytes."""

    id: str  # sha256:...
    names: tuple[str, ...]  # familiar, with tag: Docker's RepoTags
    digests: tuple[str, ...] = ()  # Docker's RepoDigests
    manifest: str  # digest of the manifest
    layers: tuple[str, ...]
    size: int
    document: ImageDocument

    @property
    def config(self) -> ImageConfig:
        """Return the default configuration of the image's containers."""
        return self.document.config

    @property
    def platform(self) -> Platform:
        """Return the platform that the image is built for."""
        document = self.document
        return Platform(document.architecture, document.os or "linux", document.variant)

    @property
    def created(self) -> str:
        """Return the creation time (RFC 3339), empty if the image does not state it."""
        return self.document.created


class HistoryItem(msgspec.Struct, frozen=True):
    """One build step of an image, as ``docker history`` prints it."""

    id: str  # the image's id for the newest step, '<missing>' for all older ones
    created: str
    created_by: str
    size: int  # bytes
    comment: str = ""
    tags: tuple[str, ...] = ()


History = list[HistoryItem]


def history(image: Image, sizes: Sequence[int]) -> History:
    """Return the build steps of an image, newest first.

    ``sizes`` are the sizes of its layers in bytes, base first.
    """
    steps = list(image.document.history)
    described = sum(not step.empty_layer for step in steps)
    items: History = []
    layer = 0
    for step in steps:
        size = 0
        if not step.empty_layer and layer < len(sizes):
            size = sizes[layer]
            layer += 1
        items.append(HistoryItem("<missing>", step.created, step.created_by, size, step.comment))
    for size in sizes[described:]:  # layers without a history entry
        items.append(HistoryItem("<missing>", image.created, "", size))
    items.reverse()
    if items:
        items[0] = msgspec.structs.replace(items[0], id=image.id, tags=image.names)
    return items


def is_built_from(image: Image, base: Image) -> bool:
    """Return whether an image has the layers and the history of another one, and more of it.

    No image names its parent, since OCI images have no such field. Entries of the history have
    their times, so that two images with the same entries have them from one build.
    """
    steps, base_steps = image.document.history, base.document.history
    return (
        len(steps) > len(base_steps)
        and steps[: len(base_steps)] == base_steps
        and image.layers[: len(base.layers)] == base.layers
    )


def check_document(data: bytes, digest: str) -> ImageDocument:
    """Parse an image configuration and check the facts that the engine relies on.

    :raises InvalidRequest: if the configuration is too large, invalid or not for Linux.
    """
    if len(data) > DOCUMENT_LIMIT:
        raise InvalidRequest(f"image configuration {digest} is larger than {DOCUMENT_LIMIT} bytes")
    document = decode(data, ImageDocument, f"image configuration {digest}")
    if document.rootfs.type not in ("layers", ""):
        raise InvalidRequest(
            f"image {digest} has a root file system of type {document.rootfs.type!r}"
        )
    if len(document.rootfs.diff_ids) > LAYERS_LIMIT:
        raise InvalidRequest(
            f"image {digest} has {len(document.rootfs.diff_ids)} layers, "
            f"the limit is {LAYERS_LIMIT}"
        )
    if document.os not in ("linux", ""):
        raise InvalidRequest(
            f"image {digest} is for {document.os!r}, this engine runs linux images"
        )
    return document


def short(id: str) -> str:
    """Return the twelve-digit short form of an image id."""
    return id.removeprefix("sha256:")[:12]


def digest_of(data: bytes) -> str:
    """Return the digest of a document, ``sha256:...``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class NameIndex:
    """Manifests and their names. ``names`` maps a familiar reference to a manifest digest."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "index.json"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout = directory / "oci-layout"
        if not layout.exists():
            _write(layout, encode(Layout()))
        self.descriptors: tuple[Descriptor, ...] = self._load()
        self.names: dict[str, str] = _names(self.descriptors)
        self._names_of = _by_manifest(self.names)
        self._owners = _owners(self.descriptors)

    def _load(self) -> tuple[Descriptor, ...]:
        try:
            return decode(self._file.read_bytes(), Index, str(self._file)).manifests
        except FileNotFoundError:
            return ()
        except InvalidRequest as error:
            raise CorruptState(
                f"the index of images is damaged: {error.message}",
                hint="restore it, or move the images directory away and load the images again",
            ) from error

    def manifests(self) -> tuple[str, ...]:
        """Return the digests of all manifests, in the order in which they were added."""
        return tuple(dict.fromkeys(descriptor.digest for descriptor in self.descriptors))

    def names_of(self, manifest: str) -> tuple[str, ...]:
        return self._names_of.get(manifest, ())

    def owner_of(self, manifest: str) -> str:
        """Return the owner of a manifest's image, empty if it has none."""
        return self._owners.get(manifest, "")

    def media_type(self, manifest: str) -> str:
        """Return the media type of a manifest, OCI's if the index does not list it."""
        for descriptor in self.descriptors:
            if descriptor.digest == manifest:
                return descriptor.media_type
        return MANIFEST

    def sweep(self) -> list[str]:
        """Remove temporary files that a crash left. Call this before anything is written."""
        partial = list(self._file.parent.glob(f"{self._file.name}.*"))
        for path in partial:
            path.unlink()
        return [path.name for path in partial]

    def set(
        self,
        manifest: str,
        size: int,
        names: Iterable[str],
        media_type: str | None = None,
        owner: str = "",
    ) -> None:
        """Add names to ``manifest``, of ``size`` bytes. An image that had such a name loses it.

        A manifest that is listed already keeps its owner.
        """
        added = set(names)
        if self.is_current(manifest, size, added, media_type):
            return
        kind = media_type or self.media_type(manifest)
        kept = [d for d in self.descriptors if d.annotations.get(REF_NAME) not in added]
        owner = self._owners.get(manifest, owner)
        owned = {OWNER: owner} if owner else {}
        named = [
            Descriptor(kind, manifest, size, annotations={REF_NAME: name, **owned})
            for name in sorted(added)
        ]
        self._replace(kept + named, Descriptor(kind, manifest, size, annotations=owned))

    def is_current(
        self, manifest: str, size: int, names: Collection[str], media_type: str | None
    ) -> bool:
        """Return whether nothing would change. A needless write would wait for the disk."""
        kind = media_type or self.media_type(manifest)
        listed = [d for d in self.descriptors if d.digest == manifest]
        same = listed and all((d.size, d.media_type) == (size, kind) for d in listed)
        return bool(same) and all(self.names.get(name) == manifest for name in names)

    def unset(self, names: Collection[str]) -> None:
        """Remove names. The images stay."""
        self._replace([d for d in self.descriptors if d.annotations.get(REF_NAME) not in names])

    def drop(self, manifests: Collection[str]) -> None:
        """Remove manifests with all their names."""
        self._store(tuple(d for d in self.descriptors if d.digest not in manifests))

    def _replace(self, descriptors: list[Descriptor], added: Descriptor | None = None) -> None:
        """Store ``descriptors``. Manifests listed before stay listed, without a name if needed."""
        listed = {d.digest: _unnamed(d) for d in self.descriptors}
        if added is not None:
            listed[added.digest] = added
        named = {d.digest for d in descriptors if REF_NAME in d.annotations}
        plain = [descriptor for digest, descriptor in listed.items() if digest not in named]
        self._store(tuple([d for d in descriptors if REF_NAME in d.annotations] + plain))

    def _store(self, descriptors: tuple[Descriptor, ...]) -> None:
        _write(self._file, encode(Index(manifests=descriptors)))
        self.descriptors = descriptors
        self.names = _names(descriptors)
        self._names_of = _by_manifest(self.names)
        self._owners = _owners(descriptors)


def _unnamed(descriptor: Descriptor) -> Descriptor:
    annotations = {key: v for key, v in descriptor.annotations.items() if key != REF_NAME}
    return msgspec.structs.replace(descriptor, annotations=annotations)


def _owners(descriptors: tuple[Descriptor, ...]) -> dict[str, str]:
    return {d.digest: d.annotations[OWNER] for d in descriptors if OWNER in d.annotations}


def _names(descriptors: tuple[Descriptor, ...]) -> dict[str, str]:
    return {d.annotations[REF_NAME]: d.digest for d in descriptors if REF_NAME in d.annotations}


def _by_manifest(names: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the sorted names of each manifest, so that a lookup does not scan all names."""
    names_of: dict[str, tuple[str, ...]] = {}
    for name in sorted(names):
        names_of[names[name]] = (*names_of.get(names[name], ()), name)
    return names_of


def _write(path: Path, data: bytes) -> None:
    """Replace a file atomically, synced before the rename: names cannot be recovered."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
        fsync_paths(path.parent)  # an acknowledged name or removal survives a power failure
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise resource_error(error, f"cannot write {path}") or error from error


Images = list[Image]


class CatalogContents(msgspec.Struct, frozen=True):
    """The image that a manifest describes. ``size`` is that of the unpacked layers, in bytes."""

    id: str
    document: ImageDocument
    size: int
    blobs: tuple[str, ...]  # digests of the layer blobs
    footprint: Footprint


class _Entries(msgspec.Struct, frozen=True):
    """The images by manifest digest, and the manifest digests of each image id, oldest first."""

    contents: dict[str, CatalogContents]
    ids: dict[str, tuple[str, ...]]

    def with_manifest(self, digest: str, contents: CatalogContents) -> _Entries:
        older = [d for d in self.ids.get(contents.id, ()) if d != digest]
        return _Entries(
            self.contents | {digest: contents}, self.ids | {contents.id: (*older, digest)}
        )

    def without(self, manifests: Collection[str]) -> _Entries:
        kept = {id: tuple(d for d in all if d not in manifests) for id, all in self.ids.items()}
        return _Entries(
            {d: contents for d, contents in self.contents.items() if d not in manifests},
            {id: digests for id, digests in kept.items() if digests},
        )


class Catalog:
    """The manifests of one index. Changes are made under the store's lock.

    The entries are replaced as a whole, so readers need no lock.
    """

    def __init__(self, blobs: BlobStore, layers: LayerStore, index: NameIndex) -> None:
        self._blobs = blobs
        self._layers = layers
        self._index = index
        self.damaged: dict[str, str] = {}
        contents: dict[str, CatalogContents] = {}
        ids: dict[str, tuple[str, ...]] = {}
        for manifest in index.manifests():
            try:
                described = self.describe(manifest)
            except JaulaError as error:
                self.damaged[manifest] = error.message
            else:
                contents[manifest] = described
                ids[described.id] = (*ids.get(described.id, ()), manifest)
        self._entries = _Entries(contents, ids)

    @property
    def contents(self) -> dict[str, CatalogContents]:
        """Return the images by manifest digest. The dictionary does not change."""
        return self._entries.contents

    def read(self, digest: str) -> str:
        """Add a stored manifest to the catalog and return the id of its image.

        :raises JaulaError: if the manifest, its configuration or a layer is missing or damaged.
        """
        contents = self.describe(digest)
        self.insert(digest, contents)
        return contents.id

    def insert(self, digest: str, contents: CatalogContents) -> None:
        """Add a stored manifest, as :meth:`describe` returned it, to the catalog."""
        self._entries = self._entries.with_manifest(digest, contents)
        self.damaged.pop(digest, None)

    def describe(self, digest: str) -> CatalogContents:
        """Return the image that a stored manifest describes.

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
        layers = tuple((id, self._layers.info(id).size) for id in document.rootfs.diff_ids)
        return CatalogContents(
            id=config.digest,
            document=document,
            size=sum(size for _, size in layers),
            blobs=tuple(layer.digest for layer in manifest.layers),
            footprint=footprint(manifest, digest, self._blobs.size(digest) or 0, layers),
        )

    def manifest(self, digest: str) -> Manifest:
        """Return a stored manifest, verified."""
        manifest = decode(self._blobs.document(digest), Manifest, f"manifest {digest}")
        if manifest.schema_version != 2:
            raise InvalidRequest(
                f"manifest {digest} has the schema version {manifest.schema_version}, not 2"
            )
        return manifest

    def damaged_parts(self) -> tuple[set[str], set[str]]:
        """Return the layers and the blobs of damaged images, as far as they can be read."""
        layers: set[str] = set()
        blobs = set(self.damaged)
        for digest in self.damaged:
            with suppress(JaulaError):
                manifest = self.manifest(digest)
                stored = {layer.digest for layer in manifest.layers}
                blobs |= {manifest.config.digest, *stored}
                layers |= stored  # the digest of a plain layer is its diff id
                config = self._blobs.document(manifest.config.digest, manifest.config.size)
                layers.update(check_document(config, manifest.config.digest).rootfs.diff_ids)
        return layers, blobs

    def drop_damaged(self, manifests: Collection[str]) -> None:
        """Remove damaged manifests with all their names."""
        if manifests:
            self._index.drop(manifests)
        for manifest in manifests:
            self.damaged.pop(manifest, None)

    def manifests_of(self, id: str) -> tuple[str, ...]:
        """Return the digests of an image's manifests, empty if there is no such image."""
        return self._entries.ids.get(id, ())

    def forget(self, id: str) -> None:
        """Remove an image with all its manifests and names."""
        self._drop(self.manifests_of(id))

    def _drop(self, manifests: Collection[str]) -> None:
        self._index.drop(manifests)
        self._entries = self._entries.without(manifests)

    def remove_unnamed(self, id: str) -> None:
        """Remove the unnamed manifests of an image, if another of its manifests has a name."""
        manifests = self.manifests_of(id)
        nameless = {m for m in manifests if not self._index.names_of(m)}
        if nameless and len(nameless) < len(manifests):
            self._drop(nameless)

    def remove_all_unnamed(self) -> None:
        """Remove the unnamed manifests of every image, as an interrupted change leaves them."""
        for id in self._entries.ids:
            self.remove_unnamed(id)

    def restore(self, digest: str, before: CatalogContents | None) -> None:
        """Undo :meth:`insert` of a manifest that could not be named. ``before`` was its entry.

        A manifest that the index lists stays: it was damaged before, and is intact now.
        """
        if before is None and digest not in self._index.manifests():
            self._entries = self._entries.without((digest,))

    # -- lookup ---------------------------------------------------------------------------------

    def image(self, manifest: str) -> Image:
        """Return the image that a manifest describes.

        :raises NotFound: if it has been removed.
        """
        return self._image(self._entries, manifest)

    def _image(self, entries: _Entries, manifest: str) -> Image:
        contents = entries.contents.get(manifest)
        if contents is None:
            raise NotFound(f"No such image: {manifest}")
        names = sorted({n for m in entries.ids[contents.id] for n in self._index.names_of(m)})
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
        entries = self._entries
        images = [self._image(entries, manifests[-1]) for manifests in entries.ids.values()]
        return sorted(images, key=lambda image: (image.created, image.id), reverse=True)

    def resolve(self, ref: str) -> Image:
        """Return the image for ``ref``: a name, an id or a unique id prefix.

        :raises NotFound: if no image matches.
        :raises CorruptState: if the image cannot be read.
        :raises InvalidRequest: if an id prefix is ambiguous or ``ref`` is not valid.
        """
        entries = self._entries
        if (reason := self.damaged.get(ref)) is not None:
            raise _damaged_error(ref, reason)
        for id in (ref, "sha256:" + ref):
            if id in entries.ids:
                return self._image(entries, entries.ids[id][-1])
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
            manifest = _by_id_prefix(entries, ref)
        if manifest is None:
            raise NotFound(f"No such image: {label}")
        if (reason := self.damaged.get(manifest)) is not None:
            raise _damaged_error(label, reason)
        current = self._entries  # the name may be newer than the entries read above
        if manifest not in current.contents:
            raise NotFound(f"No such image: {label}")
        return self._image(current, manifest)

    def _by_digest(self, reference: Reference) -> str | None:
        for manifest in self._index.manifests():
            repositories = {parse(name).repository for name in self._index.names_of(manifest)}
            if manifest == reference.digest and reference.repository in repositories:
                return manifest
        return None


def _damaged_error(label: str, reason: str) -> CorruptState:
    return CorruptState(
        f"image {label} is damaged: {reason}",
        hint="pull or load it again; jaula system check --repair repairs what is repairable",
    )


def _by_id_prefix(entries: _Entries, text: str) -> str | None:
    """Return the manifest of the one image whose id starts with ``text``."""
    prefix = "sha256:" + text.removeprefix("sha256:")
    matches = [id for id in entries.ids if id.startswith(prefix)]
    if len(matches) > 1:
        raise InvalidRequest(f"image id {text!r} is ambiguous: {len(matches)} images start with it")
    return entries.ids[matches[0]][-1] if matches else None
