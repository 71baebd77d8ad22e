"""Load images from an archive: the format of ``docker save``, or an OCI layout in a tar.

Sources: the Docker image specification 1.2 (``manifest.json``) and opencontainers/image-spec 1.1
``image-layout.md``. An archive in both formats is read as Docker's, as Docker does, except if its
layout names an index: Docker's format has one image for each name, a layout those of all platforms.

An index is stored unchanged with all of its images that the archive holds completely, and its other
manifests, such as attestations. An archive may hold a part of an index only.

All content of an archive is untrusted. Files become blobs under their own digest while they are
read, so nothing is parsed before it is hashed, and no name in the archive becomes a path. A digest
that a document states is looked up among the hashed files. An image is added to the index only when
it is complete and unpacked. Leftovers of a failure are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import product

import msgspec

from jaula.errors import InvalidRequest, NotFound
from jaula.images.archive.members import ArchiveMembers
from jaula.images.image_platform import check_platform, format_platform, select
from jaula.images.reference import parse
from jaula.images.store.image_catalog import platform_of
from jaula.images.store.image_quota import Footprint, Quota
from jaula.images.store.image_store import Image, ImageStore, Lease, check_document, short
from jaula.images.store.index import IndexTree, Kind, walk
from jaula.spec.image_documents import (
    CONFIG,
    DOCKER_CONFIG,
    INDEXES,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    LAYERS,
    LAYERS_LIMIT,
    MANIFESTS,
    REF_NAME,
    ArchiveImage,
    Descriptor,
    ImageDocument,
    Index,
    Manifest,
    Platform,
    decode,
)
from jaula.storage.compression import MAGIC_LENGTH, Compression, Source, detect_compression

Message = dict[str, object]
Admit = Callable[[str, str], None]

_CONTAINERD_NAME = "io.containerd.image.name"
_IMAGES_LIMIT = 1_000
_MEDIA_TYPES = {
    Compression.NONE: LAYER_TAR,
    Compression.GZIP: LAYER_GZIP,
    Compression.ZSTD: LAYER_ZSTD,
}


class _LoadedImage(msgspec.Struct, frozen=True):
    """An image in the archive: digests of its configuration and of its layer blobs.

    ``manifest`` is the digest of a manifest with annotations, which is stored unchanged.
    """

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]
    manifest: str = ""
    media_type: str = ""  # of the manifest

    @property
    def images(self) -> tuple[_LoadedImage, ...]:
        """Return the image itself, as :class:`_LoadedIndex` does."""
        return (self,)


class _LoadedIndex(msgspec.Struct, frozen=True):
    """An index in the archive, with its media type and what the archive holds of it.

    ``manifests`` are digests of manifests of images, ``images`` the same images. ``artifacts`` are
    its other manifests.
    """

    digest: str
    media_type: str
    manifests: tuple[str, ...]
    images: tuple[_LoadedImage, ...]
    artifacts: tuple[str, ...]
    names: tuple[str, ...]


_Loaded = _LoadedImage | _LoadedIndex


class _Shape(msgspec.Struct):
    """The members by which a manifest and an index could be confused."""

    media_type: str | None = msgspec.field(name="mediaType", default=None)
    config: object = None
    layers: object = None
    manifests: object = None


def load(
    store: ImageStore,
    stream: Source,
    *,
    quiet: bool = False,
    admit: Admit | None = None,
    quota: Quota | None = None,
    platforms: Sequence[Platform] = (),
) -> Iterator[Message]:
    """Load every image of an archive and yield Docker's progress messages.

    ``quiet`` suppresses the messages about layers. With ``platforms``, only the images for these
    are loaded. ``admit`` is called with each name and image id
    and raises an error for an image that the policy refuses. ``quota`` is checked for all images
    together before the first one is unpacked, and for each one before it is named.

    :raises InvalidRequest: if the archive is damaged, hostile or holds no image.
    :raises NotFound: if an image is not for one of ``platforms``.
    """
    with ArchiveMembers(store) as files, store.early_writeback():
        files.read(stream)
        archive = _Archive(store, files)
        incoming = [archive.only(loaded, platforms) for loaded in archive.images()]
        if admit is not None:
            for loaded in incoming:
                for name, image in product(loaded.names, loaded.images):
                    admit(name, image.config)
        store.check_quota(quota, [archive.footprint(loaded) for loaded in incoming])
        store.check_more_names(quota, (name for loaded in incoming for name in loaded.names))
        for loaded in incoming:
            target = loaded.digest if isinstance(loaded, _LoadedIndex) else loaded.manifest
            store.check_names(quota, loaded.names, target, loaded.images[0].config)
        for loaded in incoming:
            yield from _add(store, archive, loaded, quiet, quota)


def _add(
    store: ImageStore, archive: _Archive, incoming: _Loaded, quiet: bool, quota: Quota | None
) -> Iterator[Message]:
    with store.lease() as lease:
        for image in incoming.images:
            layers = yield from _unpack_layers(store, archive, image, quiet, lease)
        if isinstance(incoming, _LoadedImage):
            if incoming.manifest:
                data = archive.document(incoming.manifest)
                added = store.adopt(data, incoming.media_type, incoming.names, quota)
            else:
                config = archive.document(incoming.config)
                added = store.add(config, layers, incoming.names, quota)
        else:
            manifests = (*incoming.manifests, *incoming.artifacts)
            data = archive.document(incoming.digest)
            added = store.adopt_index(data, incoming.media_type, manifests, incoming.names, quota)
    yield from _loaded(added, incoming.names)


def _unpack_layers(
    store: ImageStore, archive: _Archive, incoming: _LoadedImage, quiet: bool, lease: Lease
) -> Generator[Message, None, list[Descriptor]]:
    """Unpack the layers of an image and return their descriptors."""
    config = archive.document(incoming.config)
    document = check_document(config, incoming.config)
    diff_ids = document.rootfs.diff_ids
    if len(diff_ids) != len(incoming.layers):
        raise InvalidRequest(
            f"image {short(incoming.config)} lists {len(diff_ids)} layers, "
            f"the archive holds {len(incoming.layers)} of it"
        )
    layers = []
    lease.pin(*diff_ids)
    for digest, diff_id in zip(incoming.layers, diff_ids, strict=True):
        archive.wait(digest)
        layers.append(_unpack(store, digest, diff_id))
        if not quiet:
            size = layers[-1].size
            yield {
                "status": "Loading layer",
                "progressDetail": {"current": size, "total": size},
                "id": short(diff_id),
            }
    return layers


def _loaded(image: Image, names: Sequence[str]) -> Iterator[Message]:
    for name in names:
        yield {"stream": f"Loaded image: {name}\n"}
    if not names:
        yield {"stream": f"Loaded image ID: {image.id}\n"}


def _unpack(store: ImageStore, digest: str, diff_id: str) -> Descriptor:
    with store.blobs.open(digest) as blob:
        kind = Compression.NONE
        if digest != diff_id:
            kind = detect_compression(blob.read(MAGIC_LENGTH))
            blob.seek(0)
        if kind is Compression.NONE:
            if digest != diff_id:
                raise InvalidRequest(
                    f"the layer's content has the digest {digest}, the image says {diff_id}"
                )
            store.layers.extract_plain(blob, diff_id)
        elif kind in _MEDIA_TYPES:
            if not store.layers.is_intact(diff_id):
                store.layers.extract(blob, diff_id)
                store.layers.record_blob(diff_id, digest)
            elif not store.layers.has_blob(diff_id, digest):
                store.layers.check_blob(blob, diff_id, digest)
                store.layers.record_blob(diff_id, digest)
        else:
            raise InvalidRequest(f"a layer is compressed with {kind}; images use gzip or zstd")
    return Descriptor(_MEDIA_TYPES[kind], digest, store.blobs.size(digest) or 0)


class _Archive:
    """The images that the archive's documents describe, checked against its files."""

    def __init__(self, store: ImageStore, files: ArchiveMembers) -> None:
        self._store = store
        self._files = files

    def wait(self, digest: str) -> None:
        """Wait until a layer that is being unpacked is complete or has failed."""
        self._files.wait(digest)

    def images(self) -> list[_Loaded]:
        images: list[_Loaded]
        if b"manifest.json" in self._files.documents and not self._names_an_index():
            images = [*self._docker()]
        elif b"index.json" in self._files.documents:
            images = self._layout()
        else:
            raise InvalidRequest(
                "the archive holds no image: it has neither manifest.json nor index.json",
                hint="use `jaula import` for a plain file system",
            )
        if not images:
            raise InvalidRequest("the archive lists no image")
        if len(images) > _IMAGES_LIMIT:
            raise InvalidRequest(
                f"the archive lists {len(images)} images, the limit is {_IMAGES_LIMIT}"
            )
        return images

    def footprint(self, loaded: _Loaded) -> Footprint:
        """Return what an image or an index takes on the disk, without its unpacked layers."""
        blobs = [blob for image in loaded.images for blob in (image.config, *image.layers)]
        sizes = tuple((digest, self._store.blobs.size(digest) or 0) for digest in blobs)
        index = loaded.digest if isinstance(loaded, _LoadedIndex) else ""
        return Footprint(loaded.images[0].config, sizes, manifest=index)

    def only(self, loaded: _Loaded, platforms: Sequence[Platform]) -> _Loaded:
        """Return an image, or of an index the images for ``platforms``; all of them without any.

        :raises NotFound: if there is none for one of them.
        """
        if not platforms:
            return loaded
        label = next(iter(loaded.names), short(loaded.images[0].config))
        if isinstance(loaded, _LoadedImage):
            for platform in platforms:
                check_platform(platform, self._platform(loaded), label)
            return loaded
        tree = self._tree(loaded.digest)
        pairs = dict(self._pairs(loaded))
        held = [self._stated(tree, m, i) for m, i in pairs.items()]
        chosen = {}
        for platform in dict.fromkeys(platforms):
            try:
                manifest = select(held, platform).digest
            except NotFound:
                raise NotFound(
                    f"image with reference {label} was found but does not provide the specified "
                    f"platform ({format_platform(platform)})"
                ) from None
            chosen[manifest] = pairs[manifest]
        about = {e.descriptor.digest for e in tree.entries if e.subject in chosen}
        return msgspec.structs.replace(
            loaded,
            manifests=tuple(chosen),
            images=tuple(chosen.values()),
            artifacts=tuple(a for a in loaded.artifacts if a in about),
        )

    def _pairs(self, index: _LoadedIndex) -> list[tuple[str, _LoadedImage]]:
        return list(zip(index.manifests, index.images, strict=True))

    def _stated(self, tree: IndexTree, manifest: str, image: _LoadedImage) -> Descriptor:
        """Return the descriptor of a manifest with the platform that the index or it states."""
        entry = tree.entry(manifest)
        assert entry is not None, "the manifest was found in this index"
        platform = entry.descriptor.platform or self._platform(image)
        return msgspec.structs.replace(entry.descriptor, platform=platform)

    def _platform(self, image: _LoadedImage) -> Platform:
        return platform_of(check_document(self.document(image.config), image.config))

    def _names_an_index(self) -> bool:
        """Return whether the archive is also an OCI layout that names an index."""
        data = self._files.documents.get(b"index.json")
        if data is None:
            return False
        manifests = decode(data, Index, "index.json").manifests
        return any(descriptor.media_type in INDEXES for descriptor in manifests)

    def document(self, digest: str) -> bytes:
        if digest not in self._files.held:
            raise InvalidRequest(f"the archive does not hold the blob {digest}")
        return self._store.blobs.document(digest)

    def _docker(self) -> list[_LoadedImage]:
        images = decode(
            self._files.documents[b"manifest.json"], tuple[ArchiveImage, ...], "manifest.json"
        )
        loaded = []
        for image in images:
            if len(image.layers) > LAYERS_LIMIT:
                raise InvalidRequest(
                    f"an image lists {len(image.layers)} layers, the limit is {LAYERS_LIMIT}"
                )
            names = tuple(_name(tag) for tag in image.repo_tags)
            layers = tuple(self._files.find(layer) for layer in image.layers)
            loaded.append(_LoadedImage(self._files.find(image.config), layers, names))
        return loaded

    def _layout(self) -> list[_Loaded]:
        index = decode(self._files.documents[b"index.json"], Index, "index.json")
        images: dict[str, _Loaded] = {}
        for descriptor in index.manifests:
            annotated = descriptor.annotations.get(_CONTAINERD_NAME) or descriptor.annotations.get(
                REF_NAME
            )
            names = (_name(annotated),) if annotated else ()
            known = images.get(descriptor.digest)
            if known is not None:
                images[descriptor.digest] = msgspec.structs.replace(
                    known, names=known.names + names
                )
            elif len(images) == _IMAGES_LIMIT:
                raise InvalidRequest(
                    f"the archive lists more than {_IMAGES_LIMIT} images, which is the limit"
                )
            elif descriptor.media_type in INDEXES:
                images[descriptor.digest] = self._read_index(descriptor, names)
            else:
                images[descriptor.digest] = self._read_manifest(descriptor, names)
        return list(images.values())

    def _read_index(self, descriptor: Descriptor, names: tuple[str, ...]) -> _LoadedIndex:
        """Return an index with the images that the archive holds completely.

        :raises NotFound: if there is none.
        """
        self._shape(descriptor)
        tree = self._tree(descriptor.digest)
        images: dict[str, _LoadedImage] = {}
        artifacts = []
        for entry in tree.entries:
            digest = entry.descriptor.digest
            if digest not in self._files.held:
                continue
            if entry.kind is not Kind.IMAGE:
                if self._is_complete(entry.descriptor):
                    artifacts.append(digest)
            elif self._is_complete(entry.descriptor):
                images[digest] = self._read_manifest(entry.descriptor, ())
        images = {m: image for m, image in images.items() if self._runs_on_linux(image)}
        if not images:
            listed = [e.descriptor for e in tree.entries if e.kind is Kind.IMAGE]
            select(listed)  # states which platforms it has if none is for this machine
            raise InvalidRequest(f"the archive does not hold an image of index {descriptor.digest}")
        return _LoadedIndex(
            descriptor.digest,
            descriptor.media_type,
            tuple(images),
            tuple(images.values()),
            tuple(artifacts),
            names,
        )

    def _tree(self, index: str) -> IndexTree:
        return walk(self.document(index), index, self._nested)

    def _nested(self, descriptor: Descriptor) -> bytes | None:
        if descriptor.digest not in self._files.held:
            return None
        self._shape(descriptor)
        return self.document(descriptor.digest)

    def _is_complete(self, descriptor: Descriptor) -> bool:
        """Return whether the archive has all that a manifest of an index names."""
        self._shape(descriptor)
        manifest = decode(
            self.document(descriptor.digest), Manifest, f"manifest {descriptor.digest}"
        )
        return all(part.digest in self._files.held for part in (manifest.config, *manifest.layers))

    def _runs_on_linux(self, image: _LoadedImage) -> bool:
        data = self.document(image.config)
        document = decode(data, ImageDocument, f"image configuration {image.config}")
        return document.os in ("linux", "")

    def _shape(self, descriptor: Descriptor) -> None:
        """Check that a document is what its descriptor says.

        :raises InvalidRequest: if it is not, or could be taken for both an index and a manifest.
        """
        data = self.document(descriptor.digest)
        if len(data) != descriptor.size:
            raise InvalidRequest(
                f"blob {descriptor.digest} has {len(data)} bytes, not {descriptor.size}"
            )
        shape = decode(data, _Shape, f"blob {descriptor.digest}")
        if shape.media_type not in (None, descriptor.media_type):
            raise InvalidRequest(
                f"blob {descriptor.digest} is described as {descriptor.media_type!r} "
                f"but states {shape.media_type!r}"
            )
        is_manifest = shape.config is not None or shape.layers is not None
        if is_manifest and shape.manifests is not None:
            raise InvalidRequest(f"blob {descriptor.digest} is both an index and a manifest")

    def _read_manifest(self, descriptor: Descriptor, names: tuple[str, ...]) -> _LoadedImage:
        self._shape(descriptor)
        data = self.document(descriptor.digest)
        if descriptor.media_type not in MANIFESTS:
            raise InvalidRequest(
                f"blob {descriptor.digest} has the media type {descriptor.media_type!r}, "
                "which is not an image manifest"
            )
        manifest = decode(data, Manifest, f"manifest {descriptor.digest}")
        if manifest.config.media_type not in (CONFIG, DOCKER_CONFIG):
            raise InvalidRequest(
                f"manifest {descriptor.digest} has a configuration of type "
                f"{manifest.config.media_type!r}; it is not a container image"
            )
        for layer in manifest.layers:
            if layer.media_type not in LAYERS:
                raise InvalidRequest(
                    f"layer {layer.digest} has the media type {layer.media_type!r}"
                )
            if (
                layer.digest not in self._files.held
                or self._store.blobs.size(layer.digest) != layer.size
            ):
                raise InvalidRequest(
                    f"the archive does not hold the layer {layer.digest} as described"
                )
        loaded = _LoadedImage(
            manifest.config.digest, tuple(layer.digest for layer in manifest.layers), names
        )
        if not manifest.annotations:  # another manifest of the same image will do
            return loaded
        return msgspec.structs.replace(
            loaded, manifest=descriptor.digest, media_type=descriptor.media_type
        )


def _name(text: str) -> str:
    reference = parse(text)
    if reference.digest is not None:
        raise InvalidRequest(f"the archive names an image {text[:200]!r}; a digest is not a name")
    return str(reference)
