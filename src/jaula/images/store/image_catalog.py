"""The images of a store: ``index.json`` with their names, and the images it leads to.

Sources: opencontainers/image-spec 1.1 ``image-index.md``, ``annotations.md``, ``config.md``. The
index has one descriptor for each name of an image. The name is in the annotation
``org.opencontainers.image.ref.name`` in its familiar form (``busybox:latest``), so that ``skopeo
inspect oci:DIRECTORY:busybox:latest`` finds it. An image without a name has one descriptor without
the annotation. A name with a digest in place of the tag (``user/app@sha256:...``) is the digest of
the image in a registry. The annotation ``io.jaula.owner`` is the caller who brought the image, so
that the owner is written and removed together with the image. ``io.jaula.name-owner`` is the caller
who set the name (:mod:`jaula.images.store.image_names`).

The file is the source of truth. It is written to a temporary name and renamed. The copy in memory
is replaced as a whole, so readers need no lock.

An image may have several manifests: one that was loaded and, with layers compressed differently,
one that was pulled. It has the names of all of them; each name resolves to its own manifest. A
manifest that cannot be read is kept apart with the reason, so that one damaged image hides no
other.

A name may refer to an index, which lists a manifest for each platform. The annotation
``io.jaula.manifests`` of the index in ``index.json`` has the manifests of it that the store holds.
It is the only statement about that, so a manifest that is stored for another reason is not taken
for one, and one that is damaged is known to be missing. Such an index is one image in lists: the
image for this machine's platform, or the first one. The others are found by name and platform, or
by their own id.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
from jaula.images import image_platform
from jaula.images.reference import Reference, could_be_id, parse
from jaula.images.store.blobs import BlobStore
from jaula.images.store.image_quota import Footprint, Sizes, footprint
from jaula.images.store.index import HELD, IndexTree, Kind, walk
from jaula.kernel.syncfs import fsync_paths
from jaula.sha256 import sha256
from jaula.spec.image_documents import (
    DOCUMENT_LIMIT,
    GZIP_LAYERS,
    INDEXES,
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
    diff_id_of,
    encode,
    layer_name,
)
from jaula.storage.layers.layer_store import LayerStore

OWNER = "io.jaula.owner"
"""The annotation of a manifest in the index that has the owner of its image."""

NAME_OWNER = "io.jaula.name-owner"
"""The annotation of a descriptor with a name that has the owner of the name."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is ready to run. ``layers`` are diff ids, base first; ``size`` is in bytes.

    ``target`` is what its name refers to: the manifest, or an index that lists it.

    ``layer_names`` are the layers as the manifest states them. The id of an image names no
    manifest, so of an image that was requested by its id they are the diff ids.
    """

    id: str  # sha256:...
    names: tuple[str, ...]  # familiar, with tag: Docker's RepoTags
    digests: tuple[str, ...] = ()  # Docker's RepoDigests
    manifest: str  # digest of the manifest
    target: str  # digest of the manifest or of the index
    layers: tuple[str, ...]
    size: int
    document: ImageDocument
    layer_names: tuple[str, ...] = ()

    @property
    def config(self) -> ImageConfig:
        """Return the default configuration of the image's containers."""
        return self.document.config

    @property
    def platform(self) -> Platform:
        """Return the platform that the image is built for."""
        return platform_of(self.document)

    @property
    def created(self) -> str:
        """Return the creation time (RFC 3339), empty if the image does not state it."""
        return self.document.created


def platform_of(document: ImageDocument) -> Platform:
    """Return the platform in an image's configuration."""
    return Platform(document.architecture, document.os or "linux", document.variant)


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


def built_from(images: Iterable[Image], bases: Iterable[Image]) -> list[Image]:
    """Return the images that were built from any of ``bases``.

    The time grows with the sum of both, and not with the product, unless many of the bases have the
    same layers.
    """
    by_layers: dict[tuple[str, ...], list[Image]] = {}
    for base in bases:
        by_layers.setdefault(base.layers, []).append(base)
    lengths = {len(layers) for layers in by_layers}
    return [
        image
        for image in images
        if any(
            _is_built_from(image, base)
            for length in lengths
            for base in by_layers.get(image.layers[:length], ())
        )
    ]


def _is_built_from(image: Image, base: Image) -> bool:
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
    return "sha256:" + sha256(data).hexdigest()


class NameIndex:
    """Manifests and their names. ``names`` maps a familiar reference to a manifest digest."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "index.json"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout = directory / "oci-layout"
        if not layout.exists():
            _write(layout, encode(Layout()))
        self.descriptors: tuple[Descriptor, ...] = self._load()
        self._derive()

    def _derive(self) -> None:
        self.names: dict[str, str] = _names(self.descriptors)
        self._names_of = _by_manifest(self.names)
        self.name_owners: dict[str, str] = _name_owners(self.descriptors)
        self.name_counts = Counter(self.name_owners.values())
        self._owners = _owners(self.descriptors)
        self._held = _held(self.descriptors)
        self._targets = {d.digest: _plain(d) for d in self.descriptors}

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
        return self._targets[manifest].media_type if manifest in self._targets else MANIFEST

    def descriptor(self, digest: str) -> Descriptor | None:
        """Return the descriptor of a manifest or an index without annotations, if it is listed."""
        return self._targets.get(digest)

    def lists(self, digest: str) -> bool:
        """Return whether the file itself lists a manifest or an index."""
        return digest in self._targets

    def is_index(self, digest: str) -> bool:
        """Return whether the file lists ``digest`` as an image index."""
        return digest in self._targets and self._targets[digest].media_type in INDEXES

    def held(self, index: str) -> tuple[str, ...]:
        """Return the manifests of an image index that the store holds."""
        return self._held.get(index, ())

    def parents(self, manifest: str) -> tuple[str, ...]:
        """Return the image indexes of which the store holds a manifest."""
        return tuple(index for index, held in self._held.items() if manifest in held)

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
        held: Iterable[str] = (),
        name_owners: Mapping[str, str] | None = None,
    ) -> None:
        """Add names to ``manifest``, of ``size`` bytes. An image that had such a name loses it.

        A manifest that is listed already keeps its owner, and a name keeps its own unless
        ``name_owners`` has another one. With ``held``, it is an index of which the store holds
        these manifests besides the former ones, and ``owner`` is its owner.
        """
        added, held = set(names), tuple(held)
        owners = self.name_owners | dict(name_owners or {})
        same_owners = all(owners.get(name) == self.name_owners.get(name) for name in added)
        if same_owners and self.is_current(manifest, size, added, media_type, held):
            return
        kind = media_type or self.media_type(manifest)
        owner = owner if held else self._owners.get(manifest, owner)
        all_held = tuple(dict.fromkeys((*self.held(manifest), *held)))
        plain = Descriptor(kind, manifest, size, annotations=_facts(owner))
        kept = [
            _renamed(plain, d.annotations.get(REF_NAME), owners) if d.digest == manifest else d
            for d in self.descriptors
            if d.annotations.get(REF_NAME) not in added
        ]
        named = [_renamed(plain, name, owners) for name in sorted(added)]
        self._replace(kept + named, plain, self._held | {manifest: all_held})

    def is_current(
        self,
        manifest: str,
        size: int,
        names: Collection[str],
        media_type: str | None,
        held: Collection[str] = (),
    ) -> bool:
        """Return whether nothing would change. A needless write would wait for the disk."""
        kind = media_type or self.media_type(manifest)
        listed = [d for d in self.descriptors if d.digest == manifest]
        same = listed and all((d.size, d.media_type) == (size, kind) for d in listed)
        same = same and set(held) <= set(self.held(manifest))
        return bool(same) and all(self.names.get(name) == manifest for name in names)

    def release(self, index: str, manifests: Collection[str]) -> None:
        """Record that the store holds these manifests of an index no longer."""
        held = tuple(digest for digest in self.held(index) if digest not in manifests)
        self._store(self.descriptors, self._held | {index: held})

    def unset(self, names: Collection[str]) -> None:
        """Remove names. The images stay."""
        self._replace([d for d in self.descriptors if d.annotations.get(REF_NAME) not in names])

    def drop(self, manifests: Collection[str]) -> None:
        """Remove manifests with all their names."""
        kept = [d for d in self.descriptors if d.digest not in manifests]
        self._store(kept, self._held)

    def _replace(
        self,
        descriptors: list[Descriptor],
        added: Descriptor | None = None,
        held: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Store ``descriptors``. Manifests listed before stay listed, without a name if needed.

        ``held`` are the manifests of each index that the store holds from now on, as now if None.
        """
        listed = {d.digest: _unnamed(d) for d in self.descriptors}
        if added is not None:
            listed[added.digest] = added
        named = {d.digest for d in descriptors if REF_NAME in d.annotations}
        plain = [descriptor for digest, descriptor in listed.items() if digest not in named]
        named_first = [d for d in descriptors if REF_NAME in d.annotations] + plain
        self._store(named_first, self._held if held is None else held)

    def _store(
        self, descriptors: Iterable[Descriptor], held: Mapping[str, tuple[str, ...]]
    ) -> None:
        stored = tuple(_with_held(descriptors, held))
        _write(self._file, encode(Index(manifests=stored)))
        self.descriptors = stored
        self._derive()


def _plain(descriptor: Descriptor) -> Descriptor:
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)


def _facts(owner: str) -> dict[str, str]:
    """Return the annotations of a manifest or an index that each of its names has."""
    return {OWNER: owner} if owner else {}


def _with_held(
    descriptors: Iterable[Descriptor], held: Mapping[str, tuple[str, ...]]
) -> Iterator[Descriptor]:
    """Yield the descriptors, of which the first one of an index has the manifests it holds.

    An index may hold hundreds, and have thousands of names.
    """
    left = {digest: " ".join(manifests) for digest, manifests in held.items() if manifests}
    for descriptor in descriptors:
        now, then = descriptor.annotations.get(HELD), left.pop(descriptor.digest, None)
        if now == then:
            yield descriptor
            continue
        annotations = {key: v for key, v in descriptor.annotations.items() if key != HELD}
        if then is not None:
            annotations[HELD] = then
        yield msgspec.structs.replace(descriptor, annotations=annotations)


def _renamed(descriptor: Descriptor, name: str | None, owners: Mapping[str, str]) -> Descriptor:
    """Return a descriptor without a name, with the name ``name`` and its owner among ``owners``."""
    if not name:
        return descriptor
    named, owner = descriptor.annotations | {REF_NAME: name}, owners.get(name, "")
    if owner or OWNER in named:  # the image's owner would count for a name without one
        named[NAME_OWNER] = owner
    return msgspec.structs.replace(descriptor, annotations=named)


def _held(descriptors: tuple[Descriptor, ...]) -> dict[str, tuple[str, ...]]:
    return {
        d.digest: tuple(d.annotations[HELD].split()) for d in descriptors if HELD in d.annotations
    }


def _unnamed(descriptor: Descriptor) -> Descriptor:
    name = (REF_NAME, NAME_OWNER)
    annotations = {key: v for key, v in descriptor.annotations.items() if key not in name}
    return msgspec.structs.replace(descriptor, annotations=annotations)


def _owners(descriptors: tuple[Descriptor, ...]) -> dict[str, str]:
    return {d.digest: d.annotations[OWNER] for d in descriptors if OWNER in d.annotations}


def _name_owners(descriptors: tuple[Descriptor, ...]) -> dict[str, str]:
    """Return the owner of each name. One that has none recorded belongs to the image's owner."""
    return {
        d.annotations[REF_NAME]: d.annotations.get(NAME_OWNER, d.annotations.get(OWNER, ""))
        for d in descriptors
        if REF_NAME in d.annotations
    }


def _names(descriptors: tuple[Descriptor, ...]) -> dict[str, str]:
    return {d.annotations[REF_NAME]: d.digest for d in descriptors if REF_NAME in d.annotations}


def _by_manifest(names: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the sorted names of each manifest, so that a lookup does not scan all names."""
    names_of: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        names_of[names[name]].append(name)
    return {manifest: tuple(listed) for manifest, listed in names_of.items()}


def _write(path: Path, data: bytes) -> None:
    """Replace a file atomically, synced before the rename: names cannot be recovered."""
    temporary = path.with_name(f"{path.name}.{os.urandom(6).hex()}")
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
Digests = list[str]


class CatalogContents(msgspec.Struct, frozen=True):
    """The image that a manifest describes. ``size`` is that of the unpacked layers, in bytes.

    ``layers`` are the names of the layers, as the manifest states them.
    """

    id: str
    document: ImageDocument
    size: int
    blobs: tuple[str, ...]  # digests of the layer blobs
    footprint: Footprint
    layers: tuple[str, ...] = ()


class IndexContents(msgspec.Struct, frozen=True):
    """An image index: what it lists, and what of that the store holds.

    ``images`` are manifests of images, in the order of the index; the damaged ones are among them.
    ``blobs`` are the documents of the index itself and its other manifests with all their blobs,
    such as attestations.
    """

    tree: IndexTree
    images: tuple[str, ...]
    artifacts: tuple[str, ...]
    blobs: Sizes

    @property
    def is_complete(self) -> bool:
        """Return whether the store holds everything that the index lists."""
        held = {*self.images, *self.artifacts}
        return self.tree.is_whole and all(e.descriptor.digest in held for e in self.tree.entries)


class Parts(msgspec.Struct, frozen=True):
    """Everything that an image needs: digests of blobs, and diff ids of layers."""

    blobs: frozenset[str]
    layers: frozenset[str]


class _Entries(msgspec.Struct, frozen=True):
    """The images by manifest digest, and the manifest digests of each image id, oldest first.

    ``indexes`` are the image indexes, ``parents`` those of each manifest, and ``primaries`` the
    manifest of each index that stands for it in lists.
    """

    contents: dict[str, CatalogContents] = {}
    ids: dict[str, tuple[str, ...]] = {}
    indexes: dict[str, IndexContents] = {}
    parents: dict[str, tuple[str, ...]] = {}
    primaries: dict[str, str] = {}

    def with_manifest(self, digest: str, contents: CatalogContents) -> _Entries:
        older = [d for d in self.ids.get(contents.id, ()) if d != digest]
        return msgspec.structs.replace(
            self,
            contents=self.contents | {digest: contents},
            ids=self.ids | {contents.id: (*older, digest)},
        )._choose(self.parents.get(digest, ()))

    def with_index(self, digest: str, index: IndexContents) -> _Entries:
        """Return the entries with an index whose images are among them."""
        others = {d: other for d, other in self.indexes.items() if d != digest}
        return self.with_indexes(others | {digest: index}, (digest,))

    def only(self, manifests: Collection[str], indexes: Collection[str]) -> _Entries:
        """Return the entries without all others. Each index keeps its manifests."""
        if len(manifests) == len(self.contents) and len(indexes) == len(self.indexes):
            return self
        kept = {id: tuple(d for d in all if d in manifests) for id, all in self.ids.items()}
        return _Entries(
            {d: contents for d, contents in self.contents.items() if d in manifests},
            {id: digests for id, digests in kept.items() if digests},
            primaries={d: m for d, m in self.primaries.items() if d in indexes},
        ).with_indexes({d: index for d, index in self.indexes.items() if d in indexes})

    def with_indexes(
        self, indexes: dict[str, IndexContents], changed: Collection[str] = ()
    ) -> _Entries:
        """Return the entries with these indexes instead of the former ones.

        ``changed`` are those whose images are others than before.
        """
        parents: dict[str, tuple[str, ...]] = {}
        for digest, index in indexes.items():
            for manifest in index.images:
                parents[manifest] = (*parents.get(manifest, ()), digest)
        entries = msgspec.structs.replace(self, indexes=indexes, parents=parents)
        return entries._choose(changed)

    def _choose(self, indexes: Collection[str]) -> _Entries:
        """Choose the manifest that stands for each of ``indexes`` again."""
        candidates = {digest: self.candidates(self.indexes[digest]) for digest in indexes}
        chosen = {
            d: image_platform.prefer(there).digest for d, there in candidates.items() if there
        }
        return msgspec.structs.replace(self, primaries=self.primaries | chosen) if chosen else self

    def candidates(self, index: IndexContents) -> list[Descriptor]:
        """Return the manifests of an index that can be run, each with its platform."""
        listed = {entry.descriptor.digest: entry.descriptor for entry in index.tree.entries}
        candidates = []
        for manifest in index.images:
            descriptor, contents = listed.get(manifest), self.contents.get(manifest)
            if descriptor is not None and contents is not None:
                stated = descriptor.platform or platform_of(contents.document)
                known = stated if stated.architecture else None
                if known is not descriptor.platform:
                    descriptor = msgspec.structs.replace(descriptor, platform=known)
                candidates.append(descriptor)
        return candidates


class Catalog:
    """The manifests of one index. Changes are made under the store's lock.

    The entries are replaced as a whole, so readers need no lock.
    """

    def __init__(self, blobs: BlobStore, layers: LayerStore, index: NameIndex) -> None:
        self._blobs = blobs
        self._layers = layers
        self._index = index
        self._entries = _Entries()
        self.damaged: dict[str, str] = {}
        described: dict[str, CatalogContents] = {}
        ids: dict[str, tuple[str, ...]] = {}
        indexes: dict[str, IndexContents] = {}
        for target in index.manifests():
            images: tuple[str, ...] = (target,)
            if index.is_index(target):
                try:
                    indexes[target] = self.describe_index(target, index.held(target))
                except JaulaError as error:
                    self.damaged[target] = error.message
                    continue
                images = indexes[target].images
            for manifest in images:
                try:
                    contents = described[manifest] = self.describe(manifest)
                except JaulaError as error:
                    self.damaged[manifest] = error.message
                else:
                    older = [d for d in ids.get(contents.id, ()) if d != manifest]
                    ids[contents.id] = (*older, manifest)
            if target in indexes and not any(m in described for m in images):
                # The index stands for its images.
                del indexes[target]
                reasons = [self.damaged.pop(m) for m in images]
                self.damaged[target] = reasons[0] if reasons else "none of its images is stored"
        self._entries = _Entries(described, ids).with_indexes(indexes, indexes)

    @property
    def contents(self) -> dict[str, CatalogContents]:
        """Return the images by manifest digest. The dictionary does not change."""
        return self._entries.contents

    @property
    def indexes(self) -> dict[str, IndexContents]:
        """Return the image indexes by digest. The dictionary does not change."""
        return self._entries.indexes

    def read(self, digest: str) -> None:
        """Add a stored manifest or index to the catalog.

        :raises JaulaError: if the manifest, its configuration or a layer is missing or damaged.
        """
        if not self._index.is_index(digest):
            self.insert(digest, self.describe(digest))
            return
        index = self.describe_index(digest, self._index.held(digest))
        for manifest in index.images:
            self._read_again(manifest)
        intact = {m: self.contents[m] for m in index.images if m not in self.damaged}
        if not intact:
            raise CorruptState(self.damaged[index.images[0]])
        self.insert_index(digest, index, intact)

    def insert(self, digest: str, contents: CatalogContents) -> None:
        """Add a stored manifest, as :meth:`describe` returned it, to the catalog."""
        self._entries = self._entries.with_manifest(digest, contents)
        self.damaged.pop(digest, None)

    def insert_index(
        self, digest: str, index: IndexContents, images: Mapping[str, CatalogContents]
    ) -> None:
        """Add a stored index and ``images``, which are some of its manifests, to the catalog."""
        for manifest in index.images:
            if manifest not in images and manifest not in self.contents:
                self._read_again(manifest)
        entries = self._entries
        for manifest, contents in images.items():
            entries = entries.with_manifest(manifest, contents)
        self._entries = entries.with_index(digest, index)
        for intact in (digest, *images):
            self.damaged.pop(intact, None)

    def _read_again(self, digest: str) -> None:
        """Read a manifest of an index again, which may have been damaged."""
        try:
            self.insert(digest, self.describe(digest))
        except JaulaError as error:
            self.damaged[digest] = error.message

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
        names = tuple(map(layer_name, manifest.layers, document.rootfs.diff_ids))
        sizes = tuple((diff_id_of(name), self._layers.info(name).size) for name in names)
        return CatalogContents(
            id=config.digest,
            document=document,
            size=sum(size for _, size in sizes),
            blobs=tuple(layer.digest for layer in manifest.layers),
            layers=names,
            footprint=footprint(manifest, digest, self._blobs.size(digest) or 0, sizes),
        )

    def describe_index(self, digest: str, held: Collection[str]) -> IndexContents:
        """Return the contents of a stored index of which the store holds the manifests ``held``.

        A manifest that is not an image and cannot be read is added to the damaged ones.

        :raises JaulaError: if the index cannot be read, or does not list one of them.
        """
        data = self._blobs.document(digest)
        tree = walk(data, digest, self._nested)
        sizes: dict[str, int] = {digest: len(data)}
        sizes |= {nested.digest: nested.size for nested in tree.nested}
        images, artifacts = [], []
        for entry in tree.entries:
            manifest = entry.descriptor.digest
            if manifest not in held:
                continue
            if entry.kind is Kind.IMAGE:
                images.append(manifest)
                continue
            try:
                sizes |= self.artifact_sizes(manifest)
            except JaulaError as error:
                self.damaged[manifest] = error.message  # the images run without it
            else:
                self.damaged.pop(manifest, None)
                artifacts.append(manifest)
        if unlisted := set(held) - {entry.descriptor.digest for entry in tree.entries}:
            raise CorruptState(f"index {digest} does not list {min(unlisted)}")
        return IndexContents(tree, tuple(images), tuple(artifacts), tuple(sizes.items()))

    def _nested(self, descriptor: Descriptor) -> bytes | None:
        try:
            return self._blobs.document(descriptor.digest, descriptor.size)
        except NotFound:
            return None  # the archive or the pull did not have it

    def artifact_sizes(self, digest: str) -> dict[str, int]:
        """Return the blobs of a manifest that is not an image, such as an attestation."""
        manifest = self.manifest(digest)
        parts = (manifest.config, *manifest.layers)
        return {digest: self._blobs.size(digest) or 0} | {part.digest: part.size for part in parts}

    def manifest(self, digest: str) -> Manifest:
        """Return a stored manifest, verified."""
        manifest = decode(self._blobs.document(digest), Manifest, f"manifest {digest}")
        if manifest.schema_version != 2:
            raise InvalidRequest(
                f"manifest {digest} has the schema version {manifest.schema_version}, not 2"
            )
        return manifest

    def compressed(self, layers: Collection[str]) -> dict[str, Descriptor]:
        """Return gzip blobs that images have of some layers, by diff id.

        That a manifest lists a blob beside a diff id is not enough: their contents were compared.
        """
        found: dict[str, Descriptor] = {}
        for digest, contents in self.contents.items():
            diff_ids = contents.document.rootfs.diff_ids
            pairs = zip(diff_ids, contents.blobs, strict=True)
            if not any(d in layers and d not in found and d != blob for d, blob in pairs):
                continue
            with suppress(JaulaError):  # removed meanwhile
                blobs = self.manifest(digest).layers
                for diff_id, blob in zip(diff_ids, blobs, strict=True):
                    if diff_id not in layers or blob.media_type not in GZIP_LAYERS:
                        continue
                    if diff_id not in found and self._layers.has_blob(diff_id, blob.digest):
                        found[diff_id] = blob
        return found

    def parts(self, image: Image) -> Parts:
        """Return everything that an image and all indexes that list it need."""
        entries = self._entries
        blobs: set[str] = set()
        layers: set[str] = set()
        manifests = dict.fromkeys(entries.ids.get(image.id, ()))
        for index in self._indexes_of(entries, image.id):
            blobs.update(digest for digest, _ in entries.indexes[index].blobs)
            manifests |= dict.fromkeys(entries.indexes[index].images)
        for manifest in manifests:
            if contents := entries.contents.get(manifest):
                blobs |= {manifest, contents.id, *contents.blobs}
                layers.update(contents.document.rootfs.diff_ids, contents.layers)
        return Parts(frozenset(blobs), frozenset(layers))

    def all_parts(self) -> Parts:
        """Return what all images need, the damaged ones as far as they can be read."""
        layers, blobs = self._damaged_parts()
        for digest, contents in self.contents.items():
            layers.update(contents.document.rootfs.diff_ids, contents.layers)
            blobs.update((digest, contents.id, *contents.blobs))
        for index in self.indexes.values():
            blobs.update(digest for digest, _ in index.blobs)
        return Parts(frozenset(blobs), frozenset(layers))

    def _damaged_parts(self) -> tuple[set[str], set[str]]:
        """Return the layers and the blobs of damaged images, as far as they can be read."""
        layers: set[str] = set()
        blobs = set(self.damaged)
        damaged = [m for d in self.damaged for m in self._index.held(d)]
        for digest in (*self.damaged, *damaged):
            blobs.add(digest)
            with suppress(JaulaError):
                if self._index.is_index(digest):
                    tree = walk(self._blobs.document(digest), digest, self._nested)
                    blobs.update(nested.digest for nested in tree.nested)
                    continue
                manifest = self.manifest(digest)
                stored = {layer.digest for layer in manifest.layers}
                blobs |= {manifest.config.digest, *stored}
                layers |= stored  # the digest of a plain layer is its diff id
                config = self._blobs.document(manifest.config.digest, manifest.config.size)
                diff_ids = check_document(config, manifest.config.digest).rootfs.diff_ids
                layers.update(diff_ids, map(layer_name, manifest.layers, diff_ids))
        return layers, blobs

    def footprints(self) -> Iterator[tuple[str, Footprint]]:
        """Yield each manifest and index that has an owner, and what it takes on the disk."""
        entries = self._entries
        for target in self._index.manifests():
            if target in entries.indexes:
                yield target, self.index_footprint(target)
            elif target in entries.contents:
                yield target, entries.contents[target].footprint

    def index_footprint(self, digest: str) -> Footprint:
        """Return what an index with all its images takes on the disk. It counts as one image."""
        entries = self._entries
        index = entries.indexes[digest]
        images = [entries.contents[m].footprint for m in index.images if m in entries.contents]
        blobs = (index.blobs, *(image.blobs for image in images))
        own = tuple(pair for pair in index.blobs if pair[0] == digest)
        return Footprint(
            entries.contents[entries.primaries[digest]].id,
            tuple(pair for sizes in blobs for pair in sizes),
            tuple(pair for image in images for pair in image.layers),
            digest,
            (*own, *(pair for image in images for pair in image.documents)),
        )

    def drop_damaged(self, manifests: Collection[str]) -> None:
        """Remove damaged manifests with all their names."""
        if manifests:
            self._drop(manifests)
        for manifest in manifests:
            self.damaged.pop(manifest, None)

    def manifests_of(self, id: str) -> tuple[str, ...]:
        """Return the digests of an image's manifests, empty if there is no such image."""
        return self._entries.ids.get(id, ())

    def names_of(self, digest: str) -> tuple[str, ...]:
        """Return the names of a manifest, and those of the indexes that hold it."""
        parents = self._index.parents(digest)
        return tuple(n for d in (digest, *parents) for n in self._index.names_of(d))

    def owner_of(self, manifest: str) -> str:
        """Return the owner of a manifest, or else that of an index that holds it."""
        owners = (self._index.owner_of(d) for d in (manifest, *self._index.parents(manifest)))
        return next((owner for owner in owners if owner), "")

    def _indexes_of(self, entries: _Entries, id: str) -> tuple[str, ...]:
        manifests = entries.ids.get(id, ())
        return tuple(dict.fromkeys(i for m in manifests for i in entries.parents.get(m, ())))

    def _targets_of(self, id: str) -> tuple[str, ...]:
        """Return what names of an image refer to: its manifests and the indexes that list them."""
        listed = [m for m in self.manifests_of(id) if self._index.lists(m)]
        return (*listed, *self._indexes_of(self._entries, id))

    def ids_with(self, id: str) -> frozenset[str]:
        """Return the ids of an image and of all images that an index has together with it."""
        entries = self._entries
        manifests = [m for i in self._indexes_of(entries, id) for m in entries.indexes[i].images]
        return frozenset(
            {id, *(entries.contents[m].id for m in manifests if m in entries.contents)}
        )

    def forget(self, id: str) -> None:
        """Remove an image with all its manifests, the indexes that list it, and all names."""
        self._drop(self._targets_of(id))

    def release(self, index: str, manifests: Collection[str]) -> None:
        """Remove manifests of an index. The index keeps at least one other image."""
        contents = self.describe_index(index, set(self._index.held(index)) - set(manifests))
        self._index.release(index, manifests)
        self._entries = self._entries.with_index(index, contents)
        self._drop_unlisted()

    def _drop(self, targets: Collection[str]) -> None:
        self._index.drop(targets)
        self._drop_unlisted()

    def _drop_unlisted(self) -> None:
        """Remove the entries that ``index.json`` does not lead to any more."""
        index = self._index
        indexes = [digest for digest in self.indexes if index.lists(digest)]
        images = {m for digest in indexes for m in self.indexes[digest].images}
        manifests = [m for m in self.contents if index.lists(m) or m in images]
        self._entries = self._entries.only(frozenset(manifests), frozenset(indexes))
        for digest in [d for d in self.damaged if not index.lists(d) and not index.parents(d)]:
            del self.damaged[digest]

    def remove_unnamed(self, id: str) -> None:
        """Remove the unnamed manifests of an image, if another of its manifests has a name.

        An unnamed index is removed if each of its images has a name elsewhere.
        """
        targets = self._targets_of(id)
        nameless = {t for t in targets if not self._index.names_of(t)}
        if nameless and len(nameless) < len(targets):
            self._drop({t for t in nameless if self._is_named_elsewhere(t)})

    def drop_unnamed_indexes(self, targets: Collection[str]) -> Digests:
        """Remove those of some indexes that have no name, and return their digests."""
        unnamed = [t for t in targets if t in self.indexes and not self._index.names_of(t)]
        if unnamed:
            self._drop(unnamed)
        return unnamed

    def _is_named_elsewhere(self, target: str) -> bool:
        entries = self._entries
        images = entries.indexes[target].images if target in entries.indexes else (target,)
        ids = {entries.contents[m].id for m in images if m in entries.contents}
        return all(any(map(self._index.names_of, self._targets_of(id))) for id in ids)

    def remove_all_unnamed(self) -> None:
        """Remove the unnamed manifests of every image, as an interrupted change leaves them."""
        for id in self._entries.ids:
            self.remove_unnamed(id)

    def restore(self, digest: str, before: CatalogContents | None) -> None:
        """Undo :meth:`insert` of a manifest that could not be named. ``before`` was its entry.

        A manifest that the index lists stays: it was damaged before, and is intact now.
        """
        if before is None and not self._index.lists(digest):
            self._drop_unlisted()

    def restore_index(self, digest: str, before: IndexContents | None) -> None:
        """Undo :meth:`insert_index` of an index that could not be named."""
        if before is not None:
            self._entries = self._entries.with_index(digest, before)
        elif self._index.is_index(digest):  # it was damaged before
            try:
                self.read(digest)
            except JaulaError as error:
                self.damaged[digest] = error.message
        self._drop_unlisted()

    # -- lookup ---------------------------------------------------------------------------------

    def image(self, manifest: str, target: str = "") -> Image:
        """Return the image that a manifest describes.

        :raises NotFound: if it has been removed.
        """
        return self._image(self._entries, manifest, target)

    def _image(self, entries: _Entries, manifest: str, target: str = "") -> Image:
        contents = entries.contents.get(manifest)
        if contents is None:
            raise NotFound(f"No such image: {manifest}")
        indexes = self._indexes_of(entries, contents.id)
        names = {n for d in (*entries.ids[contents.id], *indexes) for n in self._index.names_of(d)}
        if not target:
            parents = entries.parents.get(manifest, ())
            target = parents[-1] if parents and not self._index.lists(manifest) else manifest
        return Image(
            id=contents.id,
            names=tuple(sorted(name for name in names if "@" not in name)),
            digests=tuple(sorted(name for name in names if "@" in name)),
            manifest=manifest,
            target=target,
            layers=contents.document.rootfs.diff_ids,
            layer_names=contents.layers,
            size=contents.size,
            document=contents.document,
        )

    def list(self) -> Images:
        """Return all images, newest first. An index is one image."""
        entries = self._entries
        images = []
        for manifests in entries.ids.values():
            pairs = [pair for m in manifests for pair in self._representative(entries, m)]
            if pairs:
                images.append(self._image(entries, *pairs[-1]))
        return sorted(images, key=lambda image: (image.created, image.id), reverse=True)

    def _representative(self, entries: _Entries, manifest: str) -> Iterator[tuple[str, str]]:
        """Yield a manifest with each of its targets that it stands for in lists."""
        if self._index.lists(manifest):
            yield manifest, manifest
        for index in entries.parents.get(manifest, ()):
            if entries.primaries.get(index) == manifest:
                yield manifest, index

    def images(self, target: str) -> Images:
        """Return the images of a manifest or an index, the one for this machine first."""
        entries = self._entries
        if target not in entries.indexes:
            return [self._image(entries, target, target)]
        manifests = dict.fromkeys((entries.primaries[target], *entries.indexes[target].images))
        return [self._image(entries, m, target) for m in manifests if m in entries.contents]

    def with_siblings(self, image: Image) -> Images:
        """Return an image, and the others of all indexes that list it."""
        entries = self._entries
        indexes = self._indexes_of(entries, image.id)
        manifests = [m for index in indexes for m in entries.indexes[index].images]
        distinct = dict.fromkeys((image.manifest, *manifests))
        return [self._image(entries, m) for m in distinct if m in entries.contents]

    def resolve(self, ref: str, platform: Platform | None = None) -> Image:
        """Return the image for ``ref``: a name, an id or a unique id prefix.

        Of an index it is the one for ``platform``, or else the best one for this machine.

        :raises NotFound: if no image matches, or not for ``platform``.
        :raises CorruptState: if the image cannot be read.
        :raises InvalidRequest: if an id prefix is ambiguous or ``ref`` is not valid.
        """
        entries = self._entries
        if (reason := self.damaged.get(ref)) is not None:
            raise _damaged_error(ref, reason)
        for id in (ref, "sha256:" + ref):
            if id in entries.ids:
                manifest = self._of_id(entries, id)
                return _by_id(self._for_platform(entries, manifest, platform, ref))
        target, label = None, ref
        try:
            reference = parse(ref)
        except InvalidRequest:
            if not could_be_id(ref):
                raise
        else:
            label = str(reference)
            target = self._index.names.get(label)
            if target is None and reference.digest is not None:
                digest_name = f"{reference.repository}@{reference.digest}"
                target = self._index.names.get(digest_name) or self._by_digest(reference)
        if target is None and could_be_id(ref):
            target = _by_id_prefix(entries, ref)
            if target is not None and target not in entries.indexes:
                prefix = "sha256:" + ref.removeprefix("sha256:")
                if not entries.contents[target].id.startswith(prefix):  # a manifest's digest
                    return self._for_platform(entries, target, platform, label)
                manifest = self._of_id(entries, entries.contents[target].id)
                return _by_id(self._for_platform(entries, manifest, platform, label))
        if target is None:
            raise NotFound(f"No such image: {label}")
        if (reason := self.damaged.get(target)) is not None:
            raise _damaged_error(label, reason)
        current = self._entries  # the name may be newer than the entries read above
        if target in current.indexes:
            return self._image(current, self._select(current, target, platform, label), target)
        if target not in current.contents:
            raise NotFound(f"No such image: {label}")
        image = self._image(current, target)
        image_platform.check_platform(platform, image.platform, label)
        return image

    def _of_id(self, entries: _Entries, id: str) -> str:
        """Return the newest manifest of an image, one of which nothing is fetched if possible."""
        whole = [m for m in entries.ids[id] if not self._is_incomplete(entries, m)]
        return (whole or entries.ids[id])[-1]

    def _is_incomplete(self, entries: _Entries, manifest: str) -> bool:
        return any(map(self._layers.is_lazy, entries.contents[manifest].layers))

    def complete_manifests_of(self, id: str) -> tuple[str, ...]:
        """Return the manifests of an image of which nothing is fetched any more."""
        entries = self._entries
        all = entries.ids.get(id, ())
        return tuple(m for m in all if not self._is_incomplete(entries, m))

    def _for_platform(
        self, entries: _Entries, manifest: str, platform: Platform | None, label: str
    ) -> Image:
        """Return the image of a manifest, or the one for ``platform`` of its index."""
        image = self._image(entries, manifest)
        if image.target in entries.indexes and platform is not None:
            chosen = self._select(entries, image.target, platform, label)
            return self._image(entries, chosen, image.target)
        image_platform.check_platform(platform, image.platform, label)
        return image

    def _select(self, entries: _Entries, index: str, platform: Platform | None, label: str) -> str:
        contents = entries.indexes[index]
        if platform is None:
            return entries.primaries[index]
        try:
            return image_platform.select(entries.candidates(contents), platform).digest
        except NotFound:
            damaged = [m for m in contents.images if m in self.damaged]
            if damaged:
                raise _damaged_error(label, self.damaged[damaged[0]]) from None
            raise NotFound(
                f"image with reference {label} was found but does not provide the specified "
                f"platform ({image_platform.format_platform(platform)})"
            ) from None

    def _by_digest(self, reference: Reference) -> str | None:
        """Return a manifest or index of the repository by the digest in a reference."""
        digest = reference.digest
        if digest is None or not (self._index.lists(digest) or digest in self._entries.parents):
            return None
        repositories = {parse(name).repository for name in self.names_of(digest)}
        return digest if reference.repository in repositories else None


def _damaged_error(label: str, reason: str) -> CorruptState:
    return CorruptState(
        f"image {label} is damaged: {reason}",
        hint="pull or load it again; jaula system check --repair repairs what is repairable",
    )


def _by_id(image: Image) -> Image:
    """Return an image that was requested by its id: no manifest is chosen by that."""
    return msgspec.structs.replace(image, layer_names=image.layers)


def _by_id_prefix(entries: _Entries, text: str) -> str | None:
    """Return the manifest of the one image whose id starts with ``text``.

    Without such an id it is the one manifest or index whose digest starts with it.
    """
    prefix = "sha256:" + text.removeprefix("sha256:")
    matches = [entries.ids[id][-1] for id in entries.ids if id.startswith(prefix)]
    if not matches:
        digests = (*entries.indexes, *entries.contents)
        matches = [digest for digest in digests if digest.startswith(prefix)]
    if len(matches) > 1:
        raise InvalidRequest(f"image id {text!r} is ambiguous: {len(matches)} images start with it")
    return matches[0] if matches else None
