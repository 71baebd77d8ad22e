"""Manifests and indexes received from a registry, checked before they are used.

Sources: image-spec 1.1 ``manifest.md`` and ``image-index.md``; distribution-spec 1.1 "Pulling
manifests". A document has one media type. The response's ``Content-Type``, the document's
``mediaType`` if present, and its members must agree (CVE-2021-41190). Digests are compared before
anything is parsed.
"""

from __future__ import annotations

import msgspec

from jaula.errors import InvalidRequest, Unsupported
from jaula.images.image_platform import select
from jaula.sha256 import sha256 as new_sha256
from jaula.spec.image_documents import (
    CONFIG,
    DOCKER_CONFIG,
    INDEXES,
    LAYERS,
    LAYERS_LIMIT,
    MANIFESTS,
    Descriptor,
    Index,
    Manifest,
    Platform,
    decode,
)

ACCEPTED = ", ".join(sorted(MANIFESTS | INDEXES))


class Document(msgspec.Struct, frozen=True):
    """A manifest or an index with a verified digest and an unambiguous media type."""

    media_type: str
    digest: str
    data: bytes

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    def index(self) -> Index:
        return decode(self.data, Index, f"index {self.digest}")

    def manifest(self) -> Manifest:
        """Return the manifest of a container image.

        :raises InvalidRequest: if the document is not one.
        """
        manifest = decode(self.data, Manifest, f"manifest {self.digest}")
        if manifest.config.media_type not in (CONFIG, DOCKER_CONFIG):
            raise InvalidRequest(
                f"{self.digest} is not a container image: its configuration has the media type "
                f"{manifest.config.media_type[:100]!r}"
            )
        if len(manifest.layers) > LAYERS_LIMIT:
            raise InvalidRequest(
                f"the image has {len(manifest.layers)} layers, the limit is {LAYERS_LIMIT}"
            )
        for layer in manifest.layers:
            if layer.media_type not in LAYERS:
                raise InvalidRequest(_layer_error(layer))
        return manifest


class _Shape(msgspec.Struct):
    schema_version: int | None = msgspec.field(name="schemaVersion", default=None)
    media_type: str | None = msgspec.field(name="mediaType", default=None)
    config: object = None
    layers: object = None
    manifests: object = None
    fs_layers: object = msgspec.field(name="fsLayers", default=None)


def sha256(data: bytes) -> str:
    """Return the digest of a document."""
    return "sha256:" + new_sha256(data).hexdigest()


def read(
    data: bytes, content_type: str, *, expected: str | None, stated: str = "", what: str
) -> Document:
    """Check a document that a registry sent.

    ``expected`` is the digest in the request, or None. ``stated`` is the ``Docker-Content-Digest``
    of the response. ``what`` names the document in errors.

    :raises InvalidRequest: if the document is not valid.
    :raises Unsupported: if it is a schema 1 manifest.
    """
    digest = sha256(data)
    if expected is not None and digest != expected:
        raise InvalidRequest(
            f"manifest verification failed for digest {expected}: the registry sent {digest}"
        )
    if stated and stated != digest:
        raise InvalidRequest(
            f"the registry states {stated[:80]!r} for {what} but sent {digest}: it is damaged"
        )
    media_type = content_type.partition(";")[0].strip().lower()
    shape = decode(data, _Shape, what)
    if shape.schema_version == 1 or shape.fs_layers is not None:
        raise Unsupported(
            f"{what} is a Docker image manifest of version 2, schema 1, which is no longer used",
            hint="push it again with a current tool",
        )
    if media_type not in MANIFESTS | INDEXES:
        raise InvalidRequest(
            f"{what} has the media type {media_type[:100]!r}, which is not an image's"
        )
    if shape.media_type not in (None, media_type):
        raise InvalidRequest(
            f"{what} was sent as {media_type!r} but states {shape.media_type[:100]!r}"
        )
    is_index = media_type in INDEXES
    if (shape.manifests is not None) != is_index or (
        is_index and (shape.config is not None or shape.layers is not None)
    ):
        raise InvalidRequest(f"{what} was sent as {media_type!r}, but does not have its members")
    return Document(media_type, digest, data)


def select_manifest(document: Document, platform: Platform | None) -> Descriptor:
    """Return the manifest of an index for a platform, this machine's if None.

    :raises InvalidRequest: if the entry is not a manifest.
    :raises NotFound: if no entry matches.
    """
    selected = select(document.index().manifests, platform)
    if selected.media_type not in MANIFESTS:
        raise InvalidRequest(
            f"the index lists {selected.digest} as {selected.media_type[:100]!r}, "
            "which is not a manifest"
        )
    return selected


def _layer_error(layer: Descriptor) -> str:
    kind = layer.media_type[:100]
    if "foreign" in kind or "nondistributable" in kind:
        return (
            f"layer {layer.digest} must be fetched from a host other than the registry "
            f"({kind!r}), which is refused"
        )
    return f"layer {layer.digest} has the unknown media type {kind!r}"
