"""Manifests and indexes as a registry sends them: what they are, before anything of them is used.

Sources: image-spec 1.1 ``manifest.md`` and ``image-index.md``; distribution-spec 1.1 "Pulling
manifests". A document has one media type: the one in the answer's ``Content-Type``, in its own
``mediaType`` if it has that member, and by its shape (CVE-2021-41190). Digests are compared before
anything is parsed.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from jaula.errors import InvalidRequest, NotFound, Unsupported
from jaula.images.platform import best, shown
from jaula.spec.image import (
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

_PART = re.compile(r"[a-z0-9_-]{1,40}", re.ASCII)
ACCEPTED = ", ".join(sorted(MANIFESTS | INDEXES))


class Document(msgspec.Struct, frozen=True):
    """A manifest or an index, compared with its digest and of one media type."""

    media_type: str
    digest: str
    data: bytes

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    def index(self) -> Index:
        return decode(self.data, Index, f"index {self.digest}")

    def manifest(self) -> Manifest:
        """The manifest of a container image. Raises :class:`InvalidRequest` for anything else."""
        manifest = decode(self.data, Manifest, f"manifest {self.digest}")
        if manifest.config.media_type not in (CONFIG, DOCKER_CONFIG):
            raise InvalidRequest(
                f"{self.digest} is no container image: its configuration has the media type "
                f"{manifest.config.media_type[:100]!r}"
            )
        if len(manifest.layers) > LAYERS_LIMIT:
            raise InvalidRequest(
                f"the image has {len(manifest.layers)} layers, at most {LAYERS_LIMIT} work"
            )
        for layer in manifest.layers:
            if layer.media_type not in LAYERS:
                raise InvalidRequest(_layer_refusal(layer))
        return manifest


class _Shape(msgspec.Struct):
    schema_version: int | None = msgspec.field(name="schemaVersion", default=None)
    media_type: str | None = msgspec.field(name="mediaType", default=None)
    config: object = None
    layers: object = None
    manifests: object = None
    fs_layers: object = msgspec.field(name="fsLayers", default=None)


def sha256(data: bytes) -> str:
    """The digest of a document."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def read(
    data: bytes, content_type: str, *, wanted: str | None, stated: str = "", what: str
) -> Document:
    """Check a document that came. ``wanted`` is the digest it was asked for by, if it was.

    ``stated`` is the answer's ``Docker-Content-Digest``. Raises :class:`InvalidRequest`.
    """
    digest = sha256(data)
    if wanted is not None and digest != wanted:
        raise InvalidRequest(
            f"manifest verification failed for digest {wanted}: the registry sent {digest}"
        )
    if stated and stated != digest:
        raise InvalidRequest(
            f"the registry calls {what} {stated[:80]!r} and sent {digest}: it is damaged"
        )
    media_type = content_type.partition(";")[0].strip().lower()
    shape = decode(data, _Shape, what)
    if shape.schema_version == 1 or shape.fs_layers is not None:
        raise Unsupported(
            f"{what} is a Docker image manifest of version 2, schema 1, which is no longer used",
            hint="push it again with a current tool",
        )
    if media_type not in MANIFESTS | INDEXES:
        raise InvalidRequest(f"{what} has the media type {media_type[:100]!r}, which is no image's")
    if shape.media_type not in (None, media_type):
        raise InvalidRequest(
            f"{what} was sent as {media_type!r} and calls itself {shape.media_type[:100]!r}"
        )
    is_index = media_type in INDEXES
    if (shape.manifests is not None) != is_index or (
        is_index and (shape.config is not None or shape.layers is not None)
    ):
        raise InvalidRequest(f"{what} was sent as {media_type!r}, but has not the shape of one")
    return Document(media_type, digest, data)


def choose(document: Document, platform: Platform | None) -> Descriptor:
    """The manifest of an index for a platform (this machine's)."""
    found = best(document.index().manifests, platform)
    if found.media_type not in MANIFESTS:
        raise InvalidRequest(
            f"the index lists {found.digest} as {found.media_type[:100]!r}, which is no manifest"
        )
    return found


def platform_of(text: str | None) -> Platform | None:
    """``os/architecture[/variant]`` or an architecture alone. Raises :class:`InvalidRequest`."""
    if not text:
        return None
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidRequest(f'"{text[:80]}" is an invalid platform', hint="os/arch[/variant]")
    os_name = parts[0] if len(parts) > 1 or parts[0] == "linux" else "linux"
    names = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
    architecture = parts[1] if len(parts) > 1 else ("" if parts[0] == "linux" else parts[0])
    if not architecture:
        return None
    variant = parts[2] if len(parts) > 2 else ""
    return Platform(names.get(architecture, architecture), os_name, variant)


def check_platform(wanted: Platform | None, found: Platform, reference: str) -> None:
    """Raise :class:`NotFound`, in Docker's words, where one was asked for and another is there."""
    if wanted is None or not found.architecture:
        return
    same = (wanted.os, wanted.architecture) == (found.os, found.architecture)
    if same and (not wanted.variant or wanted.variant == (found.variant or wanted.variant)):
        return
    raise NotFound(
        f"image with reference {reference} was found but does not match the specified platform: "
        f"wanted {shown(wanted)}, actual: {shown(found)}"
    )


def _layer_refusal(layer: Descriptor) -> str:
    kind = layer.media_type[:100]
    if "foreign" in kind or "nondistributable" in kind:
        return (
            f"layer {layer.digest} is to be fetched from another host than the registry "
            f"({kind!r}), which is refused"
        )
    return f"layer {layer.digest} has the media type {kind!r}, which is not known"
