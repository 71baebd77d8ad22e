"""An image that is ready to run, and how it was made.

Source: opencontainers/image-spec 1.1 ``config.md``. A configuration is judged here before anything
relies on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.image import (
    DOCUMENT_LIMIT,
    LAYERS_LIMIT,
    ImageConfig,
    ImageDocument,
    Platform,
    decode,
)


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


def digest(data: bytes) -> str:
    """Return the digest of a document, ``sha256:...``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
