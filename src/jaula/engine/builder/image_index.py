"""The index of a build: its images for several platforms, and their attestations.

Its manifests have compressed layers, as a registry gets them, so a push changes no digest. Layers
that an image of the store has in compressed form are not compressed again.

Synchronous, for threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from jaula.errors import JaulaError
from jaula.images.attestation.package_url import package_url
from jaula.images.attestation.statement import Subject, attestation_manifest, statement
from jaula.images.platform import normalize
from jaula.images.registry.compress import compressed_layers
from jaula.images.store.index import Kind
from jaula.spec.image import CONFIG, INDEX, MANIFEST, Descriptor, Index, Manifest, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaula.engine.builder.image_state import ImageState
    from jaula.images.attestation.statement import Predicate
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.store.quota import Quota
    from jaula.images.store.store import Image, ImageStore, Lease
    from jaula.spec.image import Platform


class IndexedImage(msgspec.Struct, frozen=True):
    """One image of an index. ``config`` is its configuration.

    ``predicates`` returns the attestations about it.
    """

    platform: Platform
    state: ImageState
    config: bytes
    predicates: Callable[[], Sequence[Predicate]]


class BuiltIndex(msgspec.Struct, frozen=True):
    """An index whose blobs are stored. ``manifests`` are those of images, then of attestations.

    ``blobs`` are all digests with their sizes in bytes, the index included. ``config`` and
    ``layers`` are the blobs of the first image.
    """

    descriptor: Descriptor
    document: bytes
    manifests: tuple[Descriptor, ...]
    blobs: tuple[tuple[str, int], ...]
    config: str
    layers: tuple[str, ...]


def write_index(
    store: ImageStore,
    lease: Lease,
    images: Sequence[IndexedImage],
    names: Sequence[str],
    cancel: Cancellation,
    *,
    artifact: bool,
    keep: bool,
) -> BuiltIndex:
    """Store the blobs of an index, pinned by ``lease``. The statements are about ``names``.

    With ``keep``, an index that has the first name and the same images stays, with its
    attestations.
    """
    listed: list[Descriptor] = []
    blobs: dict[str, int] = {}

    def put(data: bytes) -> str:
        digest = store.put(lease, data)
        blobs[digest] = len(data)
        return digest

    configs: list[tuple[str, tuple[str, ...]]] = []
    for image in images:
        layers = compressed_layers(store, lease, image.state.layers, cancel)
        blobs |= {layer.digest: layer.size for layer in layers}
        config = Descriptor(CONFIG, put(image.config), len(image.config))
        data = encode(Manifest(config=config, layers=layers))
        platform = normalize(image.platform)
        listed.append(Descriptor(MANIFEST, put(data), len(data), platform=platform))
        configs.append((config.digest, tuple(layer.digest for layer in layers)))
    if keep and names and (document := _existing(store, lease, listed, names[0])):
        manifests = decode(document, Index, "the index").manifests
        descriptor = Descriptor(INDEX, put(document), len(document))
        return BuiltIndex(descriptor, document, manifests, tuple(blobs.items()), *configs[0])
    about: list[Descriptor] = []
    for image, manifest in zip(images, listed, strict=True):
        if predicates := image.predicates():
            subjects = [Subject(package_url(n, manifest.platform), manifest.digest) for n in names]
            statements = [statement(predicate, subjects) for predicate in predicates]
            attestation = attestation_manifest(statements, manifest, artifact=artifact)
            for blob in (*attestation.blobs.values(), attestation.document):
                put(blob)
            about.append(attestation.descriptor)
    manifests = (*listed, *about)
    document = encode(Index(manifests=manifests))
    descriptor = Descriptor(INDEX, put(document), len(document))
    return BuiltIndex(descriptor, document, manifests, tuple(blobs.items()), *configs[0])


def _existing(
    store: ImageStore, lease: Lease, manifests: Sequence[Descriptor], name: str
) -> bytes | None:
    """Return the index of a name if it has exactly these images, each with an attestation."""
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
        return store.blobs.document(target)
    except JaulaError:
        return None  # no image has the name, or it is damaged and is replaced


def store_index(
    store: ImageStore, index: BuiltIndex, names: Sequence[str], quota: Quota | None
) -> Image:
    """Name an index whose blobs are stored; return its image for this machine."""
    manifests = [manifest.digest for manifest in index.manifests]
    return store.adopt_index(index.document, INDEX, manifests, names, quota)
