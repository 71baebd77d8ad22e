"""The manifests of a build's outputs, and the index of its images with their attestations.

An image without an index has a manifest from here if an output requests more than its layers as
they are stored. Layers are compressed, as a registry gets them, so a push changes no digest. Layers
that an image of the store has in compressed form are not compressed again.

Synchronous, for threads. Source of the annotations: moby/buildkit ``exporter/containerimage``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.errors import InvalidRequest, JaulaError, Unsupported
from jaula.features.build.attestation.package_url import package_url
from jaula.features.build.attestation.statement import Subject, attestation_manifest, statement
from jaula.images.image_platform import format_platform, normalize
from jaula.images.registry.compress import (
    CompressedLayer,
    compressed_layers,
    with_diff_ids,
)
from jaula.images.store.index import Kind
from jaula.spec.image_documents import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_TAR,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCUMENT_LIMIT,
    INDEX,
    LAYER_GZIP,
    LAYER_TAR,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
    decode,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaula.features.build.attestation.statement import Predicate
    from jaula.features.build.build_options import BuildExport
    from jaula.features.build.builder.image_state import ImageState
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.store.image_quota import Quota
    from jaula.images.store.image_store import Image, ImageStore, Lease
    from jaula.spec.image_documents import Platform

_REFERENCE = "vnd.docker.reference."
_DOCKER_TYPES = {
    CONFIG: DOCKER_CONFIG,
    INDEX: DOCKER_LIST,
    LAYER_GZIP: DOCKER_LAYER_GZIP,
    LAYER_TAR: DOCKER_LAYER_TAR,
    MANIFEST: DOCKER_MANIFEST,
}


class IndexedImage(msgspec.Struct, frozen=True):
    """One image of an index. ``config`` is its configuration.

    ``predicates`` returns the attestations about it.
    """

    platform: Platform
    state: ImageState
    config: bytes
    predicates: Callable[[], Sequence[Predicate]]


class StoredExport(msgspec.Struct, frozen=True):
    """An index or the manifest of one image, whose blobs are stored.

    ``manifests`` are those that the index lists: of images, then of attestations. ``blobs`` are all
    digests with their sizes in bytes, ``descriptor`` last. ``config`` and
    ``layers`` are the blobs of the first image.
    """

    descriptor: Descriptor
    document: bytes
    manifests: tuple[Descriptor, ...]
    blobs: tuple[tuple[str, int], ...]
    config: str
    layers: tuple[str, ...]


def check_annotations(export: BuildExport, platforms: Sequence[Platform], *, index: bool) -> None:
    """Check that the annotations of an output have a place in it. Pure.

    :raises InvalidRequest: when one does not.
    """
    built = {format_platform(normalize(platform)) for platform in platforms}
    for annotation in export.annotations:
        if annotation.platform and annotation.platform not in built:
            raise InvalidRequest(
                f"invalid annotation: no platform {annotation.platform} found in source",
                hint=f"must be one of {', '.join(sorted(built))}",
            )
        if annotation.kind == "manifest-descriptor" and annotation.key.startswith(_REFERENCE):
            raise InvalidRequest(
                f"the annotation {annotation.key[:64]} is reserved for attestations"
            )
        if not export.oci_types and annotation.kind != "manifest":
            raise InvalidRequest('cannot export annotations with "oci-mediatypes=false"')
        if not index and annotation.kind.startswith("index"):
            raise InvalidRequest(
                "index annotations not supported for single platform export",
                hint="build for several platforms, or with attestations",
            )


def annotations_of(
    export: BuildExport, kind: str, platform: Platform | None = None
) -> dict[str, str]:
    """Return the annotations of a kind by key; those of ``platform`` replace the general ones.

    An index has those of all platforms. Pure.
    """
    name = "" if platform is None else format_platform(normalize(platform))
    chosen = [a for a in export.annotations if a.kind == kind]
    if platform is not None:
        chosen = [a for a in chosen if a.platform in ("", name)]
    return {a.key: a.value for a in sorted(chosen, key=lambda a: a.platform != "")}


class _Writer:
    """Store the blobs of one output, pinned by a lease."""

    def __init__(
        self, store: ImageStore, lease: Lease, export: BuildExport, cancel: Cancellation
    ) -> None:
        self.blobs: dict[str, int] = {}
        self._store = store
        self._lease = lease
        self._export = export
        self._cancel = cancel

    def put(self, data: bytes) -> str:
        digest = self._store.put(self._lease, data)
        self.blobs[digest] = len(data)
        return digest

    def media_type(self, media_type: str) -> str:
        """Return an OCI media type, or Docker's for the same.

        :raises Unsupported: when Docker has none.
        """
        if self._export.oci_types:
            return media_type
        if (found := _DOCKER_TYPES.get(media_type)) is None:
            raise Unsupported(
                f'a layer of the type {media_type} conflicts with "oci-mediatypes=false"',
                hint="use force-compression=true",
            )
        return found

    def document(
        self,
        media_type: str,
        data: bytes,
        annotations: dict[str, str] | None = None,
        platform: Platform | None = None,
    ) -> Descriptor:
        """Store a document and return its descriptor."""
        if len(data) > DOCUMENT_LIMIT:
            raise InvalidRequest(
                f"a document of {len(data)} bytes exceeds the limit of {DOCUMENT_LIMIT}",
                hint="use less annotations",
            )
        return Descriptor(media_type, self.put(data), len(data), annotations or {}, platform)

    def image(self, image: IndexedImage) -> tuple[Descriptor, str, tuple[str, ...]]:
        """Store a manifest; return its descriptor and the blobs of configuration and layers."""
        export, platform = self._export, normalize(image.platform)
        made = compressed_layers(
            self._store, self._lease, image.state.layers, self._cancel.check, export.compression
        )
        layers = tuple(
            msgspec.structs.replace(layer.blob, media_type=self.media_type(layer.blob.media_type))
            for layer in made
        )
        self.blobs |= {layer.digest: layer.size for layer in layers}
        if export.kind == "image":
            self._unpack(made)
        data = with_diff_ids(image.config, [layer.diff_id for layer in made])
        config = self.document(self.media_type(CONFIG), data)
        media_type = self.media_type(MANIFEST)
        document = Manifest(
            media_type=media_type,
            config=config,
            layers=layers,
            annotations=annotations_of(export, "manifest", platform) or msgspec.UNSET,
        )
        about = annotations_of(export, "manifest-descriptor", platform)
        descriptor = self.document(media_type, encode(document), about, platform)
        return descriptor, config.digest, tuple(layer.digest for layer in layers)

    def _unpack(self, layers: Sequence[CompressedLayer]) -> None:
        """Unpack the layers that the store does not have: those of eStargz have other files."""
        self._lease.pin(*(layer.diff_id for layer in layers))
        for layer in layers:
            if not self._store.layers.has(layer.diff_id):
                self._cancel.check()
                with self._store.blobs.open(layer.blob.digest) as file:
                    self._store.layers.extract(file, layer.diff_id)

    def finish(
        self,
        descriptor: Descriptor,
        document: bytes,
        manifests: tuple[Descriptor, ...],
        config: str,
        layers: tuple[str, ...],
    ) -> StoredExport:
        blobs = tuple(self.blobs.items())
        return StoredExport(descriptor, document, manifests, blobs, config, layers)


def write_manifest(
    store: ImageStore,
    lease: Lease,
    image: IndexedImage,
    export: BuildExport,
    cancel: Cancellation,
) -> StoredExport:
    """Store the blobs of one image without an index, pinned by ``lease``."""
    writer = _Writer(store, lease, export, cancel)
    descriptor, config, layers = writer.image(image)
    document = store.blobs.document(descriptor.digest)
    return writer.finish(descriptor, document, (), config, layers)


def write_index(
    store: ImageStore,
    lease: Lease,
    images: Sequence[IndexedImage],
    export: BuildExport,
    cancel: Cancellation,
    *,
    keep: bool,
) -> StoredExport:
    """Store the blobs of an index, pinned by ``lease``. The statements are about its names.

    With ``keep``, an index that has the first name and the same images stays, with its
    attestations.
    """
    writer, names = _Writer(store, lease, export, cancel), export.names
    written = [writer.image(image) for image in images]
    listed = [descriptor for descriptor, _, _ in written]
    parts = written[0][1:]
    media_type = writer.media_type(INDEX)
    annotations = annotations_of(export, "index")
    about_index = annotations_of(export, "index-descriptor")
    if keep and names and (document := _existing(store, lease, listed, annotations, names[0])):
        manifests = decode(document, Index, "the index").manifests
        descriptor = writer.document(media_type, document, about_index)
        return writer.finish(descriptor, document, manifests, *parts)
    about: list[Descriptor] = []
    for image, manifest in zip(images, listed, strict=True):
        if predicates := image.predicates():
            subjects = [Subject(package_url(n, manifest.platform), manifest.digest) for n in names]
            statements = [statement(predicate, subjects) for predicate in predicates]
            attestation = attestation_manifest(statements, manifest, artifact=export.artifact)
            for blob in (*attestation.blobs.values(), attestation.document):
                writer.put(blob)
            about.append(attestation.descriptor)
    manifests = (*listed, *about)
    index = Index(
        media_type=media_type, manifests=manifests, annotations=annotations or msgspec.UNSET
    )
    document = encode(index)
    descriptor = writer.document(media_type, document, about_index)
    return writer.finish(descriptor, document, manifests, *parts)


def _existing(
    store: ImageStore,
    lease: Lease,
    manifests: Sequence[Descriptor],
    annotations: dict[str, str],
    name: str,
) -> bytes | None:
    """Return the index of a name if it has exactly these images, each with an attestation.

    Its annotations and those of its descriptors are the same.
    """
    try:
        target = store.pin(lease, name).target
        index = store.index(target)
        if index is None or not index.is_complete:
            return None
        digests = [manifest.digest for manifest in manifests]
        entries = index.tree.entries
        images = [e.descriptor.digest for e in entries if e.kind is Kind.IMAGE]
        subjects = [e.subject for e in entries if e.kind is Kind.ATTESTATION]
        if images != digests or sorted(subjects) != sorted(digests):
            return None
        document = store.blobs.document(target)
        listed = decode(document, Index, "the index")
        same = {m.digest: m.annotations for m in manifests}
        described = {m.digest: m.annotations for m in listed.manifests if m.digest in same}
        if described != same or (listed.annotations or {}) != annotations:
            return None
        return document
    except JaulaError:
        return None  # no image has the name, or it is damaged and is replaced


def store_export(
    store: ImageStore, export: StoredExport, names: Sequence[str], quota: Quota | None
) -> Image:
    """Name an index or a manifest whose blobs are stored; return its image for this machine."""
    media_type = export.descriptor.media_type
    if not export.manifests:
        return store.adopt(export.document, media_type, names, quota)
    manifests = [manifest.digest for manifest in export.manifests]
    return store.adopt_index(export.document, media_type, manifests, names, quota)
