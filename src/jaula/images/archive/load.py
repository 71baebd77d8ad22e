"""Load images from an archive: the format of ``docker save``, or an OCI layout in a tar.

Sources: the Docker image specification 1.2 (``manifest.json``) and opencontainers/image-spec 1.1
``image-layout.md``. An archive in both formats is read as Docker's, as Docker does.

All content of an archive is untrusted. Files become blobs under their own digest while they are
read, so nothing is parsed before it is hashed, and no name in the archive becomes a path. A digest
that a document states is looked up among the hashed files. An image is added to the index only when
it is complete and unpacked. Leftovers of a failure are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.archive.members import ArchiveMembers
from jaula.images.platform import select
from jaula.images.reference import parse
from jaula.images.store.quota import Footprint, Quota
from jaula.images.store.store import Image, ImageStore, check_document, short
from jaula.spec.image import (
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
    Index,
    Manifest,
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
    """An image in the archive: digests of its configuration and of its layer blobs."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


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
) -> Iterator[Message]:
    """Load every image of an archive and yield Docker's progress messages.

    ``quiet`` suppresses the messages about layers. ``admit`` is called with each name and image id
    and raises an error for an image that the policy refuses. ``quota`` is checked for all images
    together before the first one is unpacked, and for each one before it is named.

    :raises InvalidRequest: if the archive is damaged, hostile or holds no image.
    """
    with ArchiveMembers(store) as files, store.early_writeback():
        files.read(stream)
        archive = _Archive(store, files)
        incoming = archive.images()
        if admit is not None:
            for image in incoming:
                for name in image.names:
                    admit(name, image.config)
        store.check_quota(quota, [archive.footprint(image) for image in incoming])
        for image in incoming:
            yield from _add(store, archive, image, quiet, quota)


def _add(
    store: ImageStore,
    archive: _Archive,
    incoming: _LoadedImage,
    quiet: bool,
    quota: Quota | None,
) -> Iterator[Message]:
    config = archive.document(incoming.config)
    document = check_document(config, incoming.config)
    diff_ids = document.rootfs.diff_ids
    if len(diff_ids) != len(incoming.layers):
        raise InvalidRequest(
            f"image {short(incoming.config)} lists {len(diff_ids)} layers, "
            f"the archive holds {len(incoming.layers)} of it"
        )
    layers = []
    with store.lease(diff_ids):
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
        image = store.add(config, layers, incoming.names, quota)
    yield from _loaded(image, incoming.names)


def _loaded(image: Image, names: Sequence[str]) -> Iterator[Message]:
    for name in names:
        yield {"stream": f"Loaded image: {name}\n"}
    if not names:
        yield {"stream": f"Loaded image ID: {image.id}\n"}


def _unpack(store: ImageStore, digest: str, diff_id: str) -> Descriptor:
    with store.blobs.open(digest) as blob:
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

    def images(self) -> list[_LoadedImage]:
        if b"manifest.json" in self._files.documents:
            images = self._docker()
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

    def footprint(self, image: _LoadedImage) -> Footprint:
        """Return what an image takes on the disk, without its unpacked layers."""
        blobs = (image.config, *image.layers)
        sizes = tuple((digest, self._store.blobs.size(digest) or 0) for digest in blobs)
        return Footprint(image.config, sizes)

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

    def _layout(self) -> list[_LoadedImage]:
        index = decode(self._files.documents[b"index.json"], Index, "index.json")
        images: dict[str, _LoadedImage] = {}
        for descriptor in index.manifests:
            annotated = descriptor.annotations.get(_CONTAINERD_NAME) or descriptor.annotations.get(
                REF_NAME
            )
            names = (_name(annotated),) if annotated else ()
            incoming = self._read_manifest(descriptor, names, depth=0)
            known = images.get(descriptor.digest)
            if known is not None:
                incoming = msgspec.structs.replace(known, names=known.names + names)
            images[descriptor.digest] = incoming
        return list(images.values())

    def _read_manifest(
        self, descriptor: Descriptor, names: tuple[str, ...], depth: int
    ) -> _LoadedImage:
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
        if descriptor.media_type in INDEXES and depth < 2:
            if shape.config is not None or shape.layers is not None:
                raise InvalidRequest(f"blob {descriptor.digest} is both an index and a manifest")
            index = decode(data, Index, f"index {descriptor.digest}")
            return self._read_manifest(select(index.manifests), names, depth + 1)
        if descriptor.media_type not in MANIFESTS:
            raise InvalidRequest(
                f"blob {descriptor.digest} has the media type {descriptor.media_type!r}, "
                "which is not an image manifest"
            )
        if shape.manifests is not None:
            raise InvalidRequest(f"blob {descriptor.digest} is both an index and a manifest")
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
        return _LoadedImage(
            manifest.config.digest, tuple(layer.digest for layer in manifest.layers), names
        )


def _name(text: str) -> str:
    reference = parse(text)
    if reference.digest is not None:
        raise InvalidRequest(f"the archive names an image {text[:200]!r}; a digest is not a name")
    return str(reference)
