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
        """What a container of the image runs with."""
        return self.document.config

    @property
    def platform(self) -> Platform:
        """What it is for."""
        document = self.document
        return Platform(document.architecture, document.os or "linux", document.variant)

    @property
    def created(self) -> str:
        """RFC 3339; empty where the image does not say."""
        return self.document.created


class HistoryItem(msgspec.Struct, frozen=True):
    """One step of an image's making, newest first, as ``docker history`` shows it."""

    id: str  # the image's id for the newest, '<missing>' for the others
    created: str
    created_by: str
    size: int
    comment: str = ""
    tags: tuple[str, ...] = ()


History = list[HistoryItem]


def history(image: Image, sizes: Sequence[int]) -> History:
    """The steps of its making, the newest first; ``sizes`` are its layers', base first."""
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
    for size in sizes[described:]:  # layers that the history does not tell of
        items.append(HistoryItem("<missing>", image.created, "", size))
    items.reverse()
    if items:
        items[0] = msgspec.structs.replace(items[0], id=image.id, tags=image.names)
    return items


def check_document(data: bytes, digest: str) -> ImageDocument:
    """Parse an image configuration and check what the engine relies on."""
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
            f"at most {LAYERS_LIMIT} work"
        )
    if document.os not in ("linux", ""):
        raise InvalidRequest(
            f"image {digest} is for {document.os!r}, this engine runs linux images"
        )
    return document


def short(id: str) -> str:
    """The twelve digits that people see."""
    return id.removeprefix("sha256:")[:12]


def digest(data: bytes) -> str:
    """``sha256:...`` of a document."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
