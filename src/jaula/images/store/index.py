"""The manifests that an image index lists. Pure, except for the documents that are read.

Sources: opencontainers/image-spec 1.1 ``image-index.md``; BuildKit's ``attestation-storage.md``: an
attestation is a manifest of the index with the annotation ``vnd.docker.reference.type``. It names
the manifest of its image in ``vnd.docker.reference.digest``.

An index may list other indexes. The author of an index decides its shape, so the walk is bounded:
in its depth, in the number of indexes that are read, and in the number of manifests. An index that
is listed twice is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec.image_documents import INDEXES, MANIFESTS, Descriptor, Index, decode

DEPTH_LIMIT = 3  # indexes, one in another
INDEXES_LIMIT = 32  # documents that are read for one index
MANIFESTS_LIMIT = 512  # of one index, those of nested indexes included

_REFERENCE_TYPE = "vnd.docker.reference.type"
_REFERENCE_DIGEST = "vnd.docker.reference.digest"

HELD = "io.jaula.manifests"
"""The annotation of an index in ``index.json`` that has the digests of its stored manifests."""

Read = Callable[[Descriptor], bytes | None]
"""Return the document that an index lists, verified, or None if it is not stored."""


class Kind(StrEnum):
    """Kind of a manifest of an index, by Docker's API names."""

    IMAGE = "image"
    ATTESTATION = "attestation"
    UNKNOWN = "unknown"


class IndexEntry(msgspec.Struct, frozen=True):
    """A manifest of an index. ``subject`` is the manifest that an attestation is about."""

    descriptor: Descriptor
    kind: Kind
    subject: str = ""


class IndexTree(msgspec.Struct, frozen=True):
    """All manifests of an index in its order, and the indexes in it that are stored.

    ``is_whole`` is whether all indexes in it are stored.
    """

    entries: tuple[IndexEntry, ...]
    nested: tuple[Descriptor, ...] = ()
    is_whole: bool = True

    def entry(self, manifest: str) -> IndexEntry | None:
        """Return the entry of a manifest, or None if the index does not list it."""
        return next((e for e in self.entries if e.descriptor.digest == manifest), None)


def walk(document: bytes, digest: str, read: Read) -> IndexTree:
    """Return the manifests that an index lists, directly or by other indexes.

    :raises InvalidRequest: if the index is not valid or exceeds a limit.
    """
    nested: dict[str, Descriptor | None] = {}  # None for one that is not stored
    entries: dict[str, IndexEntry] = {}
    for entry in _entries(document, digest, read, nested, 1):
        entries.setdefault(entry.descriptor.digest, entry)
        if len(entries) > MANIFESTS_LIMIT:
            raise InvalidRequest(
                f"index {digest} lists more than {MANIFESTS_LIMIT} manifests, which is the limit"
            )
    stored = tuple(descriptor for descriptor in nested.values() if descriptor is not None)
    return IndexTree(tuple(entries.values()), stored, len(stored) == len(nested))


def _entries(
    document: bytes, digest: str, read: Read, nested: dict[str, Descriptor | None], depth: int
) -> Iterator[IndexEntry]:
    index = decode(document, Index, f"index {digest}")
    if len(index.manifests) > MANIFESTS_LIMIT:
        raise InvalidRequest(
            f"index {digest} lists {len(index.manifests)} manifests, the limit is {MANIFESTS_LIMIT}"
        )
    for descriptor in index.manifests:
        if descriptor.media_type not in INDEXES:
            yield _entry(descriptor)
        elif descriptor.digest not in nested:
            if depth == DEPTH_LIMIT:
                raise InvalidRequest(
                    f"index {digest} has more than {DEPTH_LIMIT} levels, which is the limit"
                )
            if len(nested) == INDEXES_LIMIT:
                raise InvalidRequest(
                    f"index {digest} has more than {INDEXES_LIMIT} indexes, which is the limit"
                )
            data = read(descriptor)
            nested[descriptor.digest] = descriptor if data is not None else None
            if data is not None:
                yield from _entries(data, descriptor.digest, read, nested, depth + 1)


def _entry(descriptor: Descriptor) -> IndexEntry:
    kind = descriptor.annotations.get(_REFERENCE_TYPE)
    if kind == "attestation-manifest":
        subject = descriptor.annotations.get(_REFERENCE_DIGEST, "")
        return IndexEntry(descriptor, Kind.ATTESTATION, subject)
    platform = descriptor.platform
    unknown = platform is not None and "unknown" in (platform.os, platform.architecture)
    if kind is not None or unknown or descriptor.media_type not in MANIFESTS:
        return IndexEntry(descriptor, Kind.UNKNOWN)
    return IndexEntry(descriptor, Kind.IMAGE)
